#!/usr/bin/env bash
# Evaluates the identity-aware model told the calibrated shape (run scripts/calibrate.sh first) on the s1 test subjects.
# The images that served the calibration are left out. Writes out/dex_ycb/results/calibrated.json and out/dex_ycb/predictions/calibrated.npz, and prints the table.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
"$PYTHON" "$ROOT/run.py" --phase eval --dataset dex_ycb --data_root "${DATA_ROOT:-$ROOT/data/synthetic_dex_ycb}" \
    --checkpoint "$ROOT/weights/mano_identity.safetensors" --shape calibrated --identity "$ROOT/out/dex_ycb/identities" --predictions "$ROOT/out/dex_ycb/predictions/calibrated.npz" \
    --results "$ROOT/out/dex_ycb/results/calibrated.json" "$@"
