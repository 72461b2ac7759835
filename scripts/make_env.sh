# Sourced by every script: makes .venv in the repository if it is missing, broken or its requirements changed, and sets
# PYTHON and ROOT. The current folder stays, so paths that a user gives mean what they mean in the user's shell; what a
# script names by itself is under $ROOT. Needs python3 (3.11 to 3.13) with venv; PYTHON3 names another.
set -euo pipefail
ROOT="$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)"
PYTHON="$ROOT/.venv/bin/python"
_stamp="$ROOT/.venv/.requirements"
if ! cmp -s "$ROOT/requirements.txt" "$_stamp" 2>/dev/null; then
    if ! "$PYTHON" -m pip --version >/dev/null 2>&1; then   # missing, or left half made by a venv that failed
        echo "Making .venv (about two minutes, once) ..." >&2
        "${PYTHON3:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
            || { echo "error: Python 3.11 to 3.13 is needed; set PYTHON3=/path/to/python3.12" >&2; exit 1; }
        "${PYTHON3:-python3}" -m venv --clear "$ROOT/.venv" \
            || { echo "error: could not make $ROOT/.venv; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
    fi
    "$PYTHON" -m pip install --quiet --disable-pip-version-check -r "$ROOT/requirements.txt"
    cp "$ROOT/requirements.txt" "$_stamp"   # last: an install that was cut short is done again
fi
# The safe path keeps a folder such as ./datasets of the user's from being imported instead of ours.
export PYTHON ROOT PYTHONPATH="$ROOT" PYTHONSAFEPATH=1
