#!/usr/bin/env bash
# The demo with a mesh network of the CMR family on pictures in FreiHAND's layout (synthetic ones are written first; your
# own with DATA_ROOT=DIR). Takes the shipped weights/cmr_identity.safetensors (with --identity FILE, else the mean shape)
# or cmr_pg.safetensors, or your own with MODEL=cmr_sg CHECKPOINT=FILE (also one of the CMR release, such as
# cmr_sg_res18_freihand.pt; with MODEL=metro the page also shows where joints look). Without any it trains cmr_pg for
# some minutes: everything runs, but the hands are crumpled.
# Leaves out/demo_cmr/: index.html, predictions.json, and for each picture NAME_plot.jpg, NAME_mesh.ply, NAME_mesh.glb.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
FREIHAND="${DATA_ROOT:-$ROOT/data/synthetic_freihand}"
[ -n "${DATA_ROOT:-}" ] || "$ROOT/scripts/make_synthetic_freihand.sh"
PICTURES="$ROOT/out/demo_cmr/pictures"
"$PYTHON" -m datasets.synthetic.samples --freihand "$FREIHAND" --images "$PICTURES" --count 8
if [ -z "${MODEL:-}" ]; then
    MODEL=cmr_pg
    [ ! -f "$ROOT/weights/cmr_identity.safetensors" ] || MODEL=cmr_identity
fi
WEIGHTS="${CHECKPOINT:-$ROOT/weights/$MODEL.safetensors}"
if [ -z "${CHECKPOINT:-}" ] && [ ! -f "$WEIGHTS" ]; then
    echo "There is no $WEIGHTS: training $MODEL on $FREIHAND, some minutes." >&2
    "$PYTHON" "$ROOT/run.py" --phase train --out_dir "$ROOT/out" --model "$MODEL" --dataset freihand --data_root "$FREIHAND" --exp_name demo_cmr \
        --backbone regnet_x_400mf --crop joints --crop_size 128 --crop_scale 1.5 --input_size 96 \
        --init_from "$ROOT/weights/mano_baseline_conf.safetensors" --epochs 60 --batch_size 16 --val_images 16 --resume
    WEIGHTS="$ROOT/out/FreiHAND/demo_cmr/checkpoints/last.pt"
fi
SHAPE=()
[[ "$MODEL" != *_identity || " $* " =~ " --identity"[\ =] ]] || SHAPE=(--shape mean)
"$PYTHON" "$ROOT/run.py" --phase demo --model "$MODEL" --checkpoint "$WEIGHTS" --images "$PICTURES" --output "$ROOT/out/demo_cmr" \
    "${SHAPE[@]}" "$@"
