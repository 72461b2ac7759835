#!/usr/bin/env bash
# Trains the body that all networks share, from nothing: 5 passes over 113,296 images, about an hour on 2 CPU cores
# (two processes of one thread). Goes on where it stopped.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
[ -n "${DATA_ROOT:-}" ] || "$ROOT"/scripts/make_training_set.sh
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
train() {
    "$PYTHON" -m torch.distributed.run --standalone --nproc_per_node "${WORKERS:-2}" "$ROOT/run.py" --phase train --out_dir "$ROOT/out" \
        --data_root "${DATA_ROOT:-$ROOT/data/training_dex_ycb}" --cache "$ROOT/data/cache" --rotation_deg 30 --batch_size 64 \
        --threads 1 --resume --model mano_baseline "$@"
}
train --exp_name ship_body --epochs 3 "$@"
train --exp_name ship_body_long --init_from "$ROOT/out/dex_ycb/ship_body/checkpoints/last.pt" --epochs 2 --lr 8e-4 --seed 1 "$@"
