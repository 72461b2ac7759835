#!/usr/bin/env bash
# Runs every test (under 10 minutes on 2 cores). Further options go to pytest: ./scripts/test.sh -k hand
source "$(dirname "$0")/make_env.sh"
"$PYTHON" -m pytest -q "$@"
