#!/usr/bin/env bash
# Writes the synthetic training set of the shipped weights: 250 people, 8 cameras, right hands, in DexYCB's layout
# (about 60,000 images, 2 GB; half an hour on 2 cores). Writes data/training_dex_ycb/. Goes on after a stop.
source "$(dirname "$0")/make_env.sh"
"$PYTHON" -m datasets.synthetic --root data/training_dex_ycb --num_subjects 250 --num_sequences 5 --num_frames 6 \
    --left_fraction 0 --render_scale 0.5 --seed 0 "$@"
