#!/usr/bin/env bash
# Writes a small synthetic data set in HUMBI's layout to data/synthetic_humbi, unless it is there: 12 people, 4 frames
# each from 4 cameras, right hands. Under a minute on two cores.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
[ -f "$ROOT/data/synthetic_humbi/synthetic.json" ] || \
    "$PYTHON" -m datasets.synthetic.humbi_writer --root "$ROOT/data/synthetic_humbi" --num_subjects 12 --num_frames 4 --num_cameras 4 "$@"
