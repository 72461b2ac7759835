#!/usr/bin/env bash
# Predicts FreiHAND's evaluation part with the best checkpoint of scripts/train_freihand.sh, or with one you own:
#   DATA_ROOT=/path/to/FreiHAND_pub_v2 scripts/eval_freihand.sh --resume cmr_sg_res18_freihand.pt
# (a path, or a name in out/FreiHAND/cmr_sg/checkpoints/). Without DATA_ROOT: the synthetic set.
# Writes out/FreiHAND/cmr_sg/cmr_sg.json and cmr_sg.zip, the server's file, both read back and checked; prints the
# official scores if evaluation_xyz.json and evaluation_verts.json are there, and says so if not.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
[ -n "${DATA_ROOT:-}" ] || "$ROOT/scripts/make_synthetic_freihand.sh"
"$PYTHON" "$ROOT/run.py" --phase eval --out_dir "$ROOT/out" --model cmr_sg --dataset freihand --backbone ResNet18 \
    --data_root "${DATA_ROOT:-$ROOT/data/synthetic_freihand}" --resume best.pt --submit freihand "$@"
