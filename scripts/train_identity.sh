#!/usr/bin/env bash
# Trains the identity-aware model: image and TRUE shape -> pose, starting from the baseline. Writes
# out/dex_ycb/mano_identity/. Expect a lower val_mpjpe_mm than the baseline that went on for the same epochs.
source "$(dirname "$0")/make_env.sh"
"$PYTHON" run.py --phase train --model mano_identity --dataset dex_ycb --data_root "${DATA_ROOT:-data/synthetic_dex_ycb}" \
    --init_from out/dex_ycb/mano_baseline/checkpoints/last.pt --resume "$@"
