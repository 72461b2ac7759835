#!/usr/bin/env bash
# Zero-pose error against the number of calibration images, every method, several draws, on the two unseen subjects
# (1,920 synthetic images of them, written to data/unseen_dex_ycb). Writes docs/calibration.png and
# out/unseen/calibration.json. About ten minutes on 2 cores.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
DATA="$ROOT/data/unseen_dex_ycb"
"$PYTHON" -m datasets.synthetic --root "$DATA" --subjects 8,9 --num_sequences 30 --num_frames 4 --left_fraction 0 --seed 0
for pair in mano_baseline_conf:predictions pose_2d:keypoints; do
    "$PYTHON" "$ROOT/run.py" --phase predict --data_root "$DATA" --allow_missing_subjects \
        --checkpoint "$ROOT/weights/${pair%%:*}.safetensors" --predictions "$ROOT/out/unseen/${pair##*:}.npz"
done
mkdir -p "$ROOT/out/unseen"
"$PYTHON" "$ROOT/benchmarks/calibration.py" --predictions "$ROOT/out/unseen/predictions.npz" --keypoints "$ROOT/out/unseen/keypoints.npz" \
    --data_root "$DATA" --prior "$ROOT/weights/prior.npz" --plot "$ROOT/docs/calibration.png" --json "$@" | tee "$ROOT/out/unseen/calibration.json"
