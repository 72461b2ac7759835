#!/usr/bin/env bash
# Trains the identity-aware model: image and true shape -> pose, on HUMBI's right hands (people of train, val and
# test apart). DATA_ROOT=/path/to/humbi names the data; without it a small synthetic set in that layout is written
# first. Writes out/HUMBI/mano_identity/. Expect val_mpjpe_mm to fall. Run it again to go on after a stop.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
[ -n "${DATA_ROOT:-}" ] || "$ROOT/scripts/make_synthetic_humbi.sh"
"$PYTHON" "$ROOT/run.py" --phase train --out_dir "$ROOT/out" --model mano_identity --dataset humbi \
    --data_root "${DATA_ROOT:-$ROOT/data/synthetic_humbi}" --resume "$@"
