#!/usr/bin/env bash
# Runs every test in two processes (about 10 minutes). Further options go to pytest: ./scripts/test.sh -k hand
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
cd "$ROOT"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
"$PYTHON" -m pytest -q -n 2 --dist loadfile "$@"
