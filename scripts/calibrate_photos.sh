#!/usr/bin/env bash
# A person's own photos to their identity file, with no network of ours:  scripts/calibrate_photos.sh FOLDER [options]
# Needs .venv/bin/python -m pip install -r requirements-detect.txt once.
# Writes out/own_photos/identity.json and logs the hand's and fingers' lengths with their 95% intervals. Without a measured length absolute size rests on the prior (about
# +-21 mm): add --hand_length_mm 183 (wrist crease to middle fingertip, by ruler). Ten to twenty photos of open and
# half-open hands from several sides, the hand a quarter of the picture or more; --fov or --K if EXIF says nothing.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
: "${1:?usage: scripts/calibrate_photos.sh FOLDER [options]}"
"$PYTHON" "$ROOT/calibrate_from_shape_params.py" --images "$1" --output "$ROOT/out/own_photos/identity.json" "${@:2}"
