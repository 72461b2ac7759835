#!/usr/bin/env bash
# The demo on a video: VIDEO=FILE scripts/demo_video.sh [--identity FILE] [--fov 60] [--hand left] ...
# A real video needs the hand detector once: .venv/bin/python -m pip install -r requirements-detect.txt
# Without VIDEO it writes a synthetic one of an unseen person to out/demo_video/hand.mp4 first, and takes the shipped
# networks, which know such pictures. Leaves in out/demo_video/
# NAME_annotated.mp4 (no sound) and NAME_frames.jsonl (a line about the video, then one a frame).
# With --glb animated also NAME_hands.glb, with --bvh NAME_hands.bvh: the hand as it moved, for Blender and the like.
# Expect a mesh that follows the hand; its size is not known without --identity, as one camera does not see it.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
ROUTE=()
if [ -z "${VIDEO:-}" ]; then
    ROUTE=(--keypoints network)
    VIDEO="$ROOT/out/demo_video/hand.mp4"
    [ -f "$VIDEO" ] || "$PYTHON" -m datasets.synthetic.samples --video "$VIDEO" --num_frames 60
fi
"$PYTHON" "$ROOT/run.py" --phase demo --video "$VIDEO" --output "$ROOT/out/demo_video" "${ROUTE[@]}" "$@"
