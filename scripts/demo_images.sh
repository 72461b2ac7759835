#!/usr/bin/env bash
# The demo on loose pictures: IMAGES=DIR scripts/demo_images.sh [--identity FILE] [--fov 60] [--hand left] ...
# Real pictures need the hand detector once: .venv/bin/python -m pip install -r requirements-detect.txt
# Without IMAGES it writes eight synthetic pictures of two unseen people, every third one a left hand, to
# out/demo_images/pictures/ first, and takes the shipped networks, which know such pictures.
# Leaves out/demo_images/: index.html to look at, predictions.json, and for each picture NAME_plot.jpg, NAME_mesh.ply,
# NAME_mesh.glb. Expect meshes that lie on the hands; what is refused is listed with the reason.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
ROUTE=()
if [ -z "${IMAGES:-}" ]; then
    ROUTE=(--keypoints network)
    IMAGES="$ROOT/out/demo_images/pictures"
    [ -d "$IMAGES" ] || "$PYTHON" -m datasets.synthetic.samples --images "$IMAGES" --count 8
fi
"$PYTHON" "$ROOT/run.py" --phase demo --images "$IMAGES" --output "$ROOT/out/demo_images" "${ROUTE[@]}" "$@"
