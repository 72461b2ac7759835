#!/usr/bin/env bash
# Trains METRO whose tokens are the person's rest hand, on DexYCB s1. Writes out/dex_ycb/metro_identity/.
# Starts from the anonymous network: give --init_from out/dex_ycb/metro/checkpoints/last.pt (scripts/train_metro.sh)
# and, where that one went on from a trained body, --lr 2e-3 --body_lr 5e-4. Expect val_mpjpe_mm below the anonymous network's. Run it again to go on after a stop.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
"$PYTHON" "$ROOT/run.py" --phase train --out_dir "$ROOT/out" --model metro_identity --dataset dex_ycb \
    --data_root "${DATA_ROOT:-$ROOT/data/synthetic_dex_ycb}" --resume "$@"
