#!/usr/bin/env bash
# Trains the anonymous baseline: image -> pose and shape. Writes out/dex_ycb/mano_baseline/ (checkpoints/,
# log.csv, board/, args.json). On the synthetic set of scripts/make_training_set.sh expect val_mpjpe_mm to fall
# steadily; weights/weights.json holds the scores that the shipped networks reached. Run it again to go on after a stop.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
"$PYTHON" "$ROOT/run.py" --phase train --out_dir "$ROOT/out" --model mano_baseline --dataset dex_ycb --data_root "${DATA_ROOT:-$ROOT/data/synthetic_dex_ycb}" --resume "$@"
