#!/usr/bin/env bash
# Evaluates the anonymous baseline on the s1 test subjects.
# Writes out/dex_ycb/results/baseline.json and out/dex_ycb/predictions/baseline.npz, and prints the table.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
"$PYTHON" "$ROOT/run.py" --phase eval --dataset dex_ycb --data_root "${DATA_ROOT:-$ROOT/data/synthetic_dex_ycb}" \
    --checkpoint "$ROOT/weights/mano_baseline_conf.safetensors" --predictions "$ROOT/out/dex_ycb/predictions/baseline.npz" \
    --results "$ROOT/out/dex_ycb/results/baseline.json" "$@"
