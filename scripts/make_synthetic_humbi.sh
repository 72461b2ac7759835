#!/usr/bin/env bash
# Writes a small synthetic data set in HUMBI's layout to data/synthetic_humbi, unless it is there: 12 people, 4 frames
# each from 4 cameras, right hands. Under a minute on two cores.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
if [ -f "$ROOT/data/synthetic_humbi/synthetic.json" ]; then
    [ $# -eq 0 ] || { echo "data/synthetic_humbi is there already, so $* would have no effect: remove it first" >&2; exit 2; }
    exit 0
fi
"$PYTHON" -m datasets.synthetic.humbi_writer --root "$ROOT/data/synthetic_humbi" --num_subjects 12 --num_frames 4 --num_cameras 4 "$@"
