#!/usr/bin/env bash
# Other estimators' hands, personalised: writes what a HaMeR-like estimator would say of pictures of two unseen synthetic
# people (simulated errors, see benchmarks/scenes/estimator_simulation.py), calibrates each person, lays one hand on all
# frames, and measures both against the truth. Leaves in out/demo_estimators/ (or --output DIR): person-N/identity.json,
# person-N/personalised/ (index.html to look at, predictions.json, estimates/: their own file again), table.txt,
# table.json and picture.png.
# Expect camera-space errors a third to a half lower than the released ones (with the ruler), in a minute or so.
source "$(dirname "$(readlink -f "$0")")/make_env.sh"
OUT="$ROOT/out/demo_estimators"
case "$#${1:-}" in   # every step is told where, so the script reads its one option itself
    0) ;;
    2--output) OUT="$2" ;;
    1--output=*) OUT="${1#*=}" ;;
    *) echo "error: demo_estimators.sh takes --output DIR and nothing else, not: $*" >&2; exit 2 ;;
esac
"$PYTHON" -m benchmarks.estimator_demo write --output "$OUT"
CAMERA=(--K "450,450,319.5,239.5")
for PERSON in 0 1; do
    RULER="$(cat "$OUT/person-$PERSON/ruler_mm.txt" 2>/dev/null || echo 183)"   # the simulated person's, to 3 mm
    "$PYTHON" "$ROOT/calibrate_from_shape_params.py" --estimates "$OUT/person-$PERSON/results" --format hamer "${CAMERA[@]}" \
        --hand_length_mm "$RULER" --output "$OUT/person-$PERSON/identity.json"
    "$PYTHON" "$ROOT/run.py" --phase personalise --estimates "$OUT/person-$PERSON/results" --format hamer "${CAMERA[@]}" \
        --images "$OUT/person-$PERSON/pictures" --identity "$OUT/person-$PERSON/identity.json" \
        --output "$OUT/person-$PERSON/personalised"
done
"$PYTHON" -m benchmarks.estimator_demo compare --output "$OUT"
