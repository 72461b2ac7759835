#!/usr/bin/env bash
# Predicts pose, shape and confidence of the s1 test subjects (unseen in training).
# Writes out/dex_ycb/predictions/confidence.npz.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
"$PYTHON" "$ROOT/run.py" --phase predict --dataset dex_ycb --data_root "${DATA_ROOT:-$ROOT/data/synthetic_dex_ycb}" \
    --checkpoint "$ROOT/weights/mano_baseline_conf.safetensors" --predictions "$ROOT/out/dex_ycb/predictions/confidence.npz" "$@"
