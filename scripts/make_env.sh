# Sourced by every script: goes to the repository's root, makes .venv there if it is missing or its
# requirements changed, and sets PYTHON. Needs python3 (3.11 or 3.12) with venv; PYTHON3 names another.
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$ROOT"
PYTHON="$ROOT/.venv/bin/python"
_stamp="$ROOT/.venv/.requirements"
if ! cmp -s requirements.txt "$_stamp" 2>/dev/null; then
    if [ ! -x "$PYTHON" ]; then
        echo "Making .venv (about two minutes, once) ..." >&2
        "${PYTHON3:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
            || { echo "error: Python 3.11 or 3.12 is needed; set PYTHON3=/path/to/python3.12" >&2; exit 1; }
        "${PYTHON3:-python3}" -m venv .venv
    fi
    "$PYTHON" -m pip install --quiet --disable-pip-version-check -r requirements.txt
    cp requirements.txt "$_stamp"   # last: an install that was cut short is done again
fi
export PYTHON ROOT PYTHONPATH="$ROOT"
