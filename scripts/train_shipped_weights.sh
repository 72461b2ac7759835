#!/usr/bin/env bash
# Rebuilds everything in weights/ from nothing, on 2 CPU cores in about two hours (two processes of one thread
# each; set WORKERS and add --device cuda for GPUs). Every stage goes on where it stopped when run again.
# weights/weights.json holds the validation scores to expect.
# One body is trained long and shared; baseline and identity-aware model then go on from it with the same budget.
source "$(dirname "$0")/make_env.sh"
DATA="${DATA_ROOT:-data/training_dex_ycb}"
[ -n "${DATA_ROOT:-}" ] || ./scripts/make_training_set.sh
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
train() {
    "$PYTHON" -m torch.distributed.run --standalone --nproc_per_node "${WORKERS:-2}" run.py --phase train \
        --data_root "$DATA" --cache data/cache --rotation_deg 30 --batch_size 64 --threads 1 --resume "$@"
}
./scripts/train_body.sh
BODY=out/dex_ycb/ship_body_long/checkpoints/last.pt
train --model mano_baseline --exp_name ship_baseline_long --init_from "$BODY" --epochs 1 --lr 5e-4
train --model mano_identity --exp_name ship_identity_long --init_from "$BODY" --epochs 1 --lr 5e-4
train --model mano_baseline_conf --exp_name ship_confidence_long --epochs 1 --batch_size 128 \
    --init_from out/dex_ycb/ship_baseline_long/checkpoints/last.pt
train --model pose_2d --exp_name ship_pose_2d_long --init_from "$BODY" --epochs 1 --lr 5e-4
train --model cmr_identity --exp_name ship_cmr_identity --init_from "$BODY" --epochs 1 --lr 1e-3 --max_images 28160 \
    --backbone regnet_x_400mf
"$PYTHON" -m src.engine.ship --run out/dex_ycb/ship_confidence_long --name mano_baseline_conf
"$PYTHON" -m src.engine.ship --run out/dex_ycb/ship_identity_long --name mano_identity
"$PYTHON" -m src.engine.ship --run out/dex_ycb/ship_pose_2d_long --name pose_2d
"$PYTHON" -m src.engine.ship --run out/dex_ycb/ship_cmr_identity --name cmr_identity

# How far the networks are to be trusted: measured on 80 people whom they have not seen, and who are never evaluated.
PEOPLE=data/validation_people
"$PYTHON" -m datasets.synthetic --root "$PEOPLE" --seed 77 --num_subjects 80 --num_sequences 2 --num_frames 3 \
    --left_fraction 0 --render_scale 0.5 --quality 88
for model in mano_baseline_conf pose_2d; do
    "$PYTHON" run.py --phase predict --data_root "$PEOPLE" --cache data/cache --split all --allow_missing_subjects \
        --checkpoint "weights/$model.safetensors" --predictions "out/dex_ycb/predictions/people_$model.npz"
done
"$PYTHON" -m src.personalization.measure_population --data_root "$DATA" --cache data/cache --validation_root "$PEOPLE" \
    --predictions out/dex_ycb/predictions/people_mano_baseline_conf.npz \
    --keypoints out/dex_ycb/predictions/people_pose_2d.npz --output weights/prior.npz
