#!/usr/bin/env bash
# Calibrates each s1 test subject from 20 unlabelled images: one identity file a person in out/dex_ycb/identities/.
# Needs scripts/predict_with_confidence.sh and scripts/predict_2d.sh first. Expect a hand length with its
# uncertainty for each subject; --method mean repeats the plain average of the released code.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
"$PYTHON" "$ROOT/calibrate_from_shape_params.py" --predictions "$ROOT/out/dex_ycb/predictions/confidence.npz" --keypoints "$ROOT/out/dex_ycb/predictions/keypoints.npz" \
    --num_images 20 --output "$ROOT/out/dex_ycb/identities" "$@"
