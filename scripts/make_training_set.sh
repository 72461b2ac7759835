#!/usr/bin/env bash
# Writes the synthetic training set of the shipped weights: 500 people, 8 cameras, right hands, in DexYCB's layout
# (120,000 images, 8 GB; half an hour on 2 free cores). Writes data/training_dex_ycb/. Goes on after a stop.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
"$PYTHON" -m datasets.synthetic --root "$ROOT/data/training_dex_ycb" --num_subjects 500 --num_sequences 6 --num_frames 5 \
    --left_fraction 0 --render_scale 0.5 --quality 88 --seed 0 "$@"
