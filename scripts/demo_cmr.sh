#!/usr/bin/env bash
# The demo with a mesh network of the CMR family on pictures in FreiHAND's layout (synthetic ones are written first).
# Takes weights/cmr_pg.safetensors if it is shipped, else your own with CHECKPOINT=FILE MODEL=cmr_sg (also one of the CMR
# release, e.g. cmr_sg_res18_freihand.pt), else it trains cmr_pg for about two minutes: enough to see everything run,
# too little for good hands. Leaves out/demo_cmr/: index.html, predictions.json, NAME_plot.jpg, NAME_mesh.ply and .glb.
source "$(dirname "$0")/make_env.sh"
FREIHAND="${DATA_ROOT:-data/synthetic_freihand}"
[ -n "${DATA_ROOT:-}" ] || "$ROOT/scripts/make_synthetic_freihand.sh"
PICTURES=out/demo_cmr/pictures
"$PYTHON" -m datasets.synthetic.samples --freihand "$FREIHAND" --images "$PICTURES" --count 8
MODEL="${MODEL:-cmr_pg}"
SHIPPED="weights/$MODEL.safetensors"
if [ -z "${CHECKPOINT:-}" ] && [ ! -f "$SHIPPED" ]; then
    echo "There is no $SHIPPED: training $MODEL on $FREIHAND for about two minutes." >&2
    "$PYTHON" run.py --phase train --model "$MODEL" --dataset freihand --data_root "$FREIHAND" --exp_name demo_cmr \
        --backbone regnet_x_400mf --crop joints --crop_size 128 --crop_scale 1.5 --input_size 96 \
        --init_from weights/mano_baseline_conf.safetensors --epochs 60 --batch_size 16 --val_images 16 --resume
    SHIPPED=out/FreiHAND/demo_cmr/checkpoints/last.pt
fi
"$PYTHON" run.py --phase demo --model "$MODEL" --checkpoint "${CHECKPOINT:-$SHIPPED}" --images "$PICTURES" \
    --output out/demo_cmr "$@"
