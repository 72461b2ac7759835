#!/usr/bin/env bash
# Trains the confidence branch on the frozen baseline: how far to trust the shape of this image. Writes
# out/dex_ycb/mano_baseline_conf/. val_ranking_error is the share of wrongly ranked pairs of a person's images:
# 0.5 is chance, and the shipped branch (0.684 in weights/weights.json) is no better; benchmarks/README.md says why.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
"$PYTHON" "$ROOT/run.py" --phase train --out_dir "$ROOT/out" --model mano_baseline_conf --dataset dex_ycb --data_root "${DATA_ROOT:-$ROOT/data/synthetic_dex_ycb}" \
    --init_from "$ROOT/out/dex_ycb/mano_baseline/checkpoints/last.pt" --resume "$@"
