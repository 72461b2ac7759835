#!/usr/bin/env bash
# Writes a data set's training and validation splits as shards: WebDataset tars of crops and labels, with an index
# (counts, sha256), for data that is read over a network or lies on several disks. Train from them by giving SHARDS as
# --data_root of run.py, e.g. DATA_ROOT=data/shards scripts/train_baseline.sh. Stopped, it goes on where it was.
# Further options: python -m datasets.write_shards --help (e.g. --image jpg, --rows for parts on several disks).
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
DATASET="${DATASET:-dex_ycb}"
SETUP="${SETUP:-$([ "$DATASET" = dex_ycb ] && echo s1 || echo s0)}"
SHARDS="${SHARDS:-$ROOT/data/shards}"
case " $* " in *" --output"*) echo "--output: name the folder with SHARDS=DIR before the command" >&2; exit 2 ;; esac
"$PYTHON" -m datasets.write_shards --dataset "$DATASET" --data_root "${DATA_ROOT:-$ROOT/data/synthetic_$DATASET}" \
  --split "${SETUP}_train" "${SETUP}_val" --output "$SHARDS" "$@"
"$PYTHON" -m datasets.write_shards --output "$SHARDS" --check
