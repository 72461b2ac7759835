#!/usr/bin/env bash
# Evaluates the identity-aware model told the true shape on the s1 test subjects.
# Writes out/dex_ycb/results/true_shape.json and out/dex_ycb/predictions/true_shape.npz, and prints the table.
source "$(dirname "$0")/make_env.sh"
"$PYTHON" run.py --phase predict --dataset dex_ycb --data_root "${DATA_ROOT:-data/synthetic_dex_ycb}" --setup s1 \
    --checkpoint weights/mano_identity.safetensors --shape gt --predictions out/dex_ycb/predictions/true_shape.npz "$@"
"$PYTHON" run.py --phase eval --dataset dex_ycb --data_root "${DATA_ROOT:-data/synthetic_dex_ycb}" --setup s1 \
    --predictions out/dex_ycb/predictions/true_shape.npz --results out/dex_ycb/results/true_shape.json "$@"
