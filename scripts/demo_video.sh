#!/usr/bin/env bash
# The demo on a video: VIDEO=FILE scripts/demo_video.sh [--identity FILE] [--fov 60] [--hand left] ...
# Without VIDEO it writes a synthetic one of an unseen person to out/demo_video/hand.mp4 first. Leaves in out/demo_video/
# NAME_annotated.mp4 (no sound) and NAME_frames.jsonl (a line about the video, then one a frame).
# Expect a mesh that follows the hand and a hand length whose interval holds 196 mm for the synthetic person.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
if [ -z "${VIDEO:-}" ]; then
    VIDEO="$ROOT/out/demo_video/hand.mp4"
    [ -f "$VIDEO" ] || "$PYTHON" -m datasets.synthetic.samples --video "$VIDEO" --num_frames 60
fi
"$PYTHON" "$ROOT/run.py" --phase demo --video "$VIDEO" --output "$ROOT/out/demo_video" "$@"
