#!/usr/bin/env bash
# Predicts 2D keypoints with confidence of the s1 test subjects. Writes out/dex_ycb/predictions/keypoints.npz.
source "$(dirname "$0")/make_env.sh"
"$PYTHON" run.py --phase predict --dataset dex_ycb --data_root "${DATA_ROOT:-data/synthetic_dex_ycb}" --setup s1 \
    --checkpoint weights/pose_2d.safetensors --predictions out/dex_ycb/predictions/keypoints.npz "$@"
