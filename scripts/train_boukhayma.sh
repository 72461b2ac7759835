#!/usr/bin/env bash
# Trains the comparison method of Boukhayma et al. (ResNet-34), on DexYCB s1. Writes out/dex_ycb/boukhayma/.
# --recipe paper gives the released code's settings (its image size, loss and augmentation).
# Expect val_mpjpe_mm to fall steadily. Run it again to go on after a stop.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
"$PYTHON" "$ROOT/run.py" --phase train --out_dir "$ROOT/out" --model boukhayma --dataset dex_ycb \
    --data_root "${DATA_ROOT:-$ROOT/data/synthetic_dex_ycb}" --resume "$@"
