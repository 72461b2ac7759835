#!/usr/bin/env bash
# Shows that a CMR network learns a handful of images by heart: trains cmr_pg (one stage) on 8 synthetic images for two
# minutes and prints its error as it falls. Expect 1.0 mm at the end (over 3 mm: exit status 1). --model cmr_identity
# does the same; --backbone ResNet18 takes the released cascade, which wants an hour or a GPU.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
"$PYTHON" -m benchmarks.reproduce.overfit_cmr --root "$ROOT/data/synthetic_freihand" "$@"
