#!/usr/bin/env bash
# Writes a small synthetic data set in FreiHAND's layout to data/synthetic_freihand, unless it is there: 64 training
# samples (four images each, masks, all JSON lists) and 16 of evaluation, with labels. About a minute on two cores.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
if [ -f "$ROOT/data/synthetic_freihand/synthetic.json" ]; then
    [ $# -eq 0 ] || { echo "data/synthetic_freihand is there already, so $* would have no effect: remove it first" >&2; exit 2; }
    exit 0
fi
"$PYTHON" -m datasets.synthetic.freihand_writer --root "$ROOT/data/synthetic_freihand" --num_train 64 --num_eval 16 "$@"
