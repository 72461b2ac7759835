#!/usr/bin/env bash
# Writes a synthetic data set in DexYCB's layout: all ten subjects (N sequences each) and eight cameras.
#   scripts/make_synthetic_dex_ycb.sh --root DIR --num_sequences N --num_frames F --seed S [more options]
# Expect DIR/2020*-subject-*/, DIR/calibration/, DIR/models/ and DIR/synthetic.json, about 45 KB an image and
# some 60 images a second a core. Interrupted, it goes on where it stopped. --help lists every option
# (more people to train on, only some subjects, coarser rays, depth).
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
exec "$PYTHON" -m datasets.synthetic "$@"
