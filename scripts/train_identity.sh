#!/usr/bin/env bash
# Trains the identity-aware model: image and TRUE shape -> pose, starting from the baseline. Writes
# out/dex_ycb/mano_identity/. Expect a lower val_mpjpe_mm than the baseline that went on for the same epochs.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
"$PYTHON" "$ROOT/run.py" --phase train --out_dir "$ROOT/out" --model mano_identity --dataset dex_ycb --data_root "${DATA_ROOT:-$ROOT/data/synthetic_dex_ycb}" \
    --init_from "$ROOT/out/dex_ycb/mano_baseline/checkpoints/last.pt" --resume "$@"
