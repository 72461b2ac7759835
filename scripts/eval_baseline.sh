#!/usr/bin/env bash
# Evaluates the anonymous baseline on the s1 test subjects.
# Writes out/dex_ycb/results/baseline.json and out/dex_ycb/predictions/baseline.npz, and prints the table.
source "$(dirname "$0")/make_env.sh"
"$PYTHON" run.py --phase predict --dataset dex_ycb --data_root "${DATA_ROOT:-data/synthetic_dex_ycb}" --setup s1 \
    --checkpoint weights/mano_baseline_conf.safetensors --predictions out/dex_ycb/predictions/baseline.npz "$@"
"$PYTHON" run.py --phase eval --dataset dex_ycb --data_root "${DATA_ROOT:-data/synthetic_dex_ycb}" --setup s1 \
    --predictions out/dex_ycb/predictions/baseline.npz --results out/dex_ycb/results/baseline.json "$@"
