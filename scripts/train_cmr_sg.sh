#!/usr/bin/env bash
# Trains CMR-SG (ResNet-18): image -> silhouette, joints -> mesh, on DexYCB s1. Writes out/dex_ycb/cmr_sg/.
# --recipe paper gives the released code's image size, loss and augmentation. Wants a GPU: three ResNets an image.
# Expect val_mpjpe_mm to fall steadily. Run it again to go on after a stop.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
"$PYTHON" "$ROOT/run.py" --phase train --out_dir "$ROOT/out" --model cmr_sg --dataset dex_ycb \
    --data_root "${DATA_ROOT:-$ROOT/data/synthetic_dex_ycb}" --resume "$@"
