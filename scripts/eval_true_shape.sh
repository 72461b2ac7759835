#!/usr/bin/env bash
# Evaluates the identity-aware model told the true shape on the s1 test subjects.
# Writes out/dex_ycb/results/true_shape.json and out/dex_ycb/predictions/true_shape.npz, and prints the table.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
"$PYTHON" "$ROOT/run.py" --phase eval --dataset dex_ycb --data_root "${DATA_ROOT:-$ROOT/data/synthetic_dex_ycb}" \
    --checkpoint "$ROOT/weights/mano_identity.safetensors" --shape gt --predictions "$ROOT/out/dex_ycb/predictions/true_shape.npz" \
    --results "$ROOT/out/dex_ycb/results/true_shape.json" "$@"
