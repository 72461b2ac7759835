#!/usr/bin/env bash
# Writes pictures like the world (any hand, posture, light, camera, background) with labels in FreiHAND's layout:
#     scripts/make_world_set.sh --root data/world --num_images 4000 --seed 0 [--processes 2]
# About 0.1 s a picture and core. The same numbers give the same pictures; goes on after a stop.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
"$PYTHON" -m datasets.synthetic.world.writer "$@"
