#!/usr/bin/env bash
# Shows that a CMR network learns a handful of images by heart: trains cmr_pg on 4 synthetic images and prints its error
# as it falls. Expect under 3 mm at the end (else exit status 1). --model cmr_sg and cmr_identity do the same.
source "$(dirname "$0")/make_env.sh"
"$PYTHON" -m benchmarks.overfit_cmr "$@"
