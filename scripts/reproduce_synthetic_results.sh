#!/usr/bin/env bash
# Trains, calibrates, evaluates and fits every row of benchmarks/results.md, three seeds each; goes on where it stopped.
# With a GPU (or --whole) every seed is a whole training, from a body of its own; else all networks go on from the shared
# body of scripts/train_body.sh (an hour), which takes about 1.5 hours more on 2 CPU cores. Needs the training set of
# scripts/make_training_set.sh. A run begun on a GPU can go on without one: --whole --device cpu --parallel 2.
# --on_shipped_body: METRO's table alone, from the body that ships (two hours on 2 CPU cores), added to the others.
# --quick: everything small, the same table in out/results/quick/ within 15 minutes, nothing needed beforehand.
# --data_root DIR --body FILE: the same table on the real DexYCB (s1), from a body trained on it.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
"$PYTHON" -m benchmarks.reproduce "$@"
