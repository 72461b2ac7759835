#!/usr/bin/env bash
# Trains CMR-SG (ResNet-18) on FreiHAND: DATA_ROOT=/path/to/FreiHAND_pub_v2 scripts/train_freihand.sh --recipe paper
# Without DATA_ROOT it takes a small synthetic set in that layout (written first), to see that everything runs.
# Writes out/FreiHAND/cmr_sg/ (checkpoints/, log.csv, board/, args.json). On the synthetic set expect val_mpjpe_mm to
# fall over the ten epochs, to no useful value: 58 people's images are too few. Run it again to go on after a stop.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
[ -n "${DATA_ROOT:-}" ] || "$ROOT/scripts/make_synthetic_freihand.sh"
"$PYTHON" "$ROOT/run.py" --phase train --out_dir "$ROOT/out" --model cmr_sg --dataset freihand --backbone ResNet18 \
    --data_root "${DATA_ROOT:-$ROOT/data/synthetic_freihand}" --resume "$@"
