#!/usr/bin/env bash
# Rebuilds everything in weights/ from nothing: the networks of the results table's first seed. With a GPU each starts
# from a body of its own (minutes on an H100, once the data are there); on 2 CPU cores from the body of train_body.sh
# (two hours). Every stage goes on where it stopped when run again. weights/weights.json holds the scores to expect.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
[ $# -eq 0 ] || { echo "error: train_shipped_weights.sh takes no options (DATA_ROOT=DIR names the data), not: $*" >&2; exit 2; }
DATA="$ROOT/data/training_dex_ycb" RUNS=results FROM=()
if [ -n "${DATA_ROOT:-}" ]; then # another data set in DexYCB's layout
    DATA=$DATA_ROOT RUNS=dex_ycb FROM=(--data_root "$DATA_ROOT")
else
    "$ROOT"/scripts/make_training_set.sh
fi
if "$PYTHON" -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then
    [ "$RUNS" = dex_ycb ] || RUNS=whole
else
    DATA_ROOT=$DATA "$ROOT"/scripts/train_body.sh
fi
RUNS="$ROOT/out/dex_ycb/$RUNS"
"$PYTHON" -m benchmarks.reproduce --train_only --seeds 0 "${FROM[@]}" \
    --networks fair_confidence fair_identity pose_2d cmr_identity
"$PYTHON" -m src.engine.ship --run "${RUNS}_fair_confidence_seed0" --name mano_baseline_conf
"$PYTHON" -m src.engine.ship --run "${RUNS}_fair_identity_seed0" --name mano_identity
"$PYTHON" -m src.engine.ship --run "${RUNS}_pose_2d_seed0" --name pose_2d
# The table trains the mesh networks the least; the one that ships goes on.
"$PYTHON" "$ROOT/run.py" --phase train --out_dir "$ROOT/out" --model cmr_identity --backbone regnet_x_400mf --data_root "$DATA" --cache "$ROOT/data/cache" \
    --exp_name ship_cmr_identity --init_from "${RUNS}_cmr_identity_seed0/checkpoints/last.pt" --rotation_deg 30 \
    --epochs 1 --max_images 28160 --batch_size 64 --optimizer adamw --weight_decay 0.01 --schedule cosine --lr 1e-3 --resume
"$PYTHON" -m src.engine.ship --run "$ROOT/out/dex_ycb/ship_cmr_identity" --name cmr_identity --bits 6

# How far the networks are to be trusted: measured on 80 people whom they have not seen, and who are never evaluated.
PEOPLE="$ROOT/data/validation_people"
"$PYTHON" -m datasets.synthetic --root "$PEOPLE" --seed 77 --num_subjects 80 --num_sequences 2 --num_frames 3 \
    --left_fraction 0 --render_scale 0.5 --quality 88
for model in mano_baseline_conf pose_2d; do
    "$PYTHON" "$ROOT/run.py" --phase predict --data_root "$PEOPLE" --cache "$ROOT/data/cache" --split all --allow_missing_subjects \
        --checkpoint "$ROOT/weights/$model.safetensors" --predictions "$ROOT/out/dex_ycb/predictions/people_$model.npz"
done
"$PYTHON" -m src.personalization.calibration.measure_population --data_root "$DATA" --cache "$ROOT/data/cache" --validation_root "$PEOPLE" \
    --predictions "$ROOT/out/dex_ycb/predictions/people_mano_baseline_conf.npz" \
    --keypoints "$ROOT/out/dex_ycb/predictions/people_pose_2d.npz" --output "$ROOT/weights/prior.npz"
