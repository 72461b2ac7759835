#!/usr/bin/env bash
# Trains METRO, a transformer over a template hand, on the body of the fair networks, on DexYCB s1. Writes
# out/dex_ycb/metro/. --recipe paper gives the released network (ResNet-50 at 224 px, 100 million weights: wants a GPU).
# From a trained body it learns in minutes: --backbone regnet_x_400mf --init_from weights/mano_baseline_conf.safetensors
# --lr 4e-3 --body_lr 5e-4. Expect val_mpjpe_mm to fall steadily. Run it again to go on after a stop.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
"$PYTHON" "$ROOT/run.py" --phase train --out_dir "$ROOT/out" --model metro --dataset dex_ycb \
    --data_root "${DATA_ROOT:-$ROOT/data/synthetic_dex_ycb}" --resume "$@"
