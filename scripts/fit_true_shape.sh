#!/usr/bin/env bash
# Fits pose and translation to 2D keypoints with the true shape held fixed (s1 test subjects).
# Needs scripts/eval_true_shape.sh and scripts/predict_2d.sh first. Writes out/dex_ycb/fitted/true_shape.npz and prints errors
# before and after; expect them to fall. --solver adam is the released code's loop, some 100 times slower (benchmarks/fit_speed.py).
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
[[ " $* " =~ " --solver"[\ =]"adam " ]] || set -- --prior "$ROOT/weights/prior.npz" "$@"  # which the released loop has not
"$PYTHON" "$ROOT/optimization_dex_ycb.py" --predictions "$ROOT/out/dex_ycb/predictions/true_shape.npz" --keypoints "$ROOT/out/dex_ycb/predictions/keypoints.npz" --shape_source gt \
    --data_root "${DATA_ROOT:-$ROOT/data/synthetic_dex_ycb}" --output "$ROOT/out/dex_ycb/fitted/true_shape.npz" "$@"
