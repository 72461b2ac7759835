#!/usr/bin/env bash
# The demo: writes images of two synthetic people whom no network has seen, calibrates each from 20 unlabelled
# images, evaluates, fits. Leaves out/demo/ (results.json, pictures, meshes, identities) and prints the table
# and what each stage took. Expect the calibrated shape to be far nearer the truth than the mean shape.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
"$PYTHON" "$ROOT/run.py" --phase demo --output "$ROOT/out/demo" "$@"
