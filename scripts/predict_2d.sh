#!/usr/bin/env bash
# Predicts 2D keypoints with confidence of the s1 test subjects. Writes out/dex_ycb/predictions/keypoints.npz.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
"$PYTHON" "$ROOT/run.py" --phase predict --dataset dex_ycb --data_root "${DATA_ROOT:-$ROOT/data/synthetic_dex_ycb}" \
    --checkpoint "$ROOT/weights/pose_2d.safetensors" --predictions "$ROOT/out/dex_ycb/predictions/keypoints.npz" "$@"
