#!/usr/bin/env bash
# Trains the 2D keypoint model. Writes out/dex_ycb/pose_2d/. Expect val_keypoints_px (px of the 96 px input)
# below 2. It may start from a baseline, whose backbone and heat maps it shares: add --init_from FILE.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
"$PYTHON" "$ROOT/run.py" --phase train --out_dir "$ROOT/out" --model pose_2d --dataset dex_ycb --data_root "${DATA_ROOT:-$ROOT/data/synthetic_dex_ycb}" --resume "$@"
