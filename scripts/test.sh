#!/usr/bin/env bash
# Runs every test (under 10 minutes on 2 cores). Further options go to pytest: ./scripts/test.sh -k hand
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
cd "$ROOT"
"$PYTHON" -m pytest -q "$@"
