#!/usr/bin/env bash
# Renders a bank of hands like the world's and trains the hand detector and the keypoint network on it, at the same time,
# for MINUTES by the clock (a GPU is expected; DEVICE=cpu works, slowly). Writes $RUN/{detector,keypoints}.safetensors and
# their scores (.json). Goes on after a stop; STOP_AFTER ends this call after so many minutes. 0.1 MB of disk a cut-out.
# PYTHON names an interpreter that has everything; else .venv is made.
if [ -n "${PYTHON:-}" ]; then
    set -euo pipefail
    ROOT="$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)"
    export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" PYTHONSAFEPATH=1
else
    source "$(dirname "$(readlink -f "$0")")/make_env.sh"
fi
RUN=${RUN:-$ROOT/out/world} MINUTES=${MINUTES:-17} STOP_AFTER=${STOP_AFTER:-10000} RENDER_MINUTES=${RENDER_MINUTES:-8}
PROCESSES=${PROCESSES:-$(nproc)} PEOPLE=${PEOPLE:-10000} HELD_BACK=${HELD_BACK:-200} DEVICE=${DEVICE:-auto}
read -ra KEYPOINTS <<< "${KEYPOINTS:---max_cutouts 300000}" # further options of the one training
read -ra DETECTOR <<< "${DETECTOR:---max_cutouts 120000}"   # ... and of the other
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
mkdir -p "$RUN"
"$PYTHON" -m datasets.synthetic.world.bank --root "$RUN/val" --people "$HELD_BACK" --first 1000000 --processes "$PROCESSES"
"$PYTHON" -m datasets.synthetic.world.bank --root "$RUN/bank" --people "$PEOPLE" --processes "$PROCESSES" \
    --minutes "$RENDER_MINUTES" &
jobs=($!)
train() { # task, options
    "$PYTHON" -m src.engine.world.train --task "$1" --bank "$RUN/bank" --validation "$RUN/val" --out "$RUN" \
        --minutes "$MINUTES" --stop_after "$STOP_AFTER" --interim --device "$DEVICE" "${@:2}" 2>&1 | tee -a "$RUN/$1.log"
}
train keypoints "${KEYPOINTS[@]}" &
jobs+=($!)
train detector "${DETECTOR[@]}" &
jobs+=($!)
trap 'kill $(jobs -p) 2>/dev/null' INT TERM
for job in "${jobs[@]}"; do wait "$job"; done
