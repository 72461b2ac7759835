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

# How far the networks are to be trusted: poses and keypoints on the validation subject, shapes on the training people.
predict() {
    "$PYTHON" run.py --phase predict --data_root "$DATA" --cache data/cache --split "$1" --max_images "$2" \
        --checkpoint "weights/$3.safetensors" --predictions "out/dex_ycb/predictions/$4.npz"
}
predict s1_val 100000 mano_baseline_conf validation
predict s1_val 100000 pose_2d validation_keypoints
predict s1_train 4960 mano_baseline_conf training
"$PYTHON" -m src.personalization.measure_population --data_root "$DATA" --cache data/cache \
    --predictions out/dex_ycb/predictions/validation.npz --keypoints out/dex_ycb/predictions/validation_keypoints.npz \
    --shape_predictions out/dex_ycb/predictions/training.npz --output weights/prior.npz
