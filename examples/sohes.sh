#!/usr/bin/env bash
# SOHES from photographs to a segmenter: explore, learn from what was found, correct oneself, predict.
# Usage: examples/sohes.sh IMAGES OUT [GROUND_TRUTH.json]
#
# Killed at any moment and started again, it goes on where it was. The defaults are for a look at it: the built-in features and
# a small segmenter. The paper's own sizes, on GPUs (weights are downloaded at first):
#   MODEL=dino-vitb8 LAUNCH="torchrun --no-python --nproc-per-node 8" \
#   SEGMENT="--batch 16 --lr 8e-4 --steps 40000 --set size=base --set backbone=dino-vitb8 --set side=1024" \
#   CORRECT="--steps 5000" examples/sohes.sh IMAGES OUT
set -euo pipefail
(($# >= 2)) || { sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//' >&2; exit 2; }
images=$1
out=$2
truth=${3:-}
mkdir -p "$out"

# Phase 1, self-exploration: features merged into regions, their boundaries refined, a forest by coverage.
[ -e "$out/pseudo.json" ] ||
  ovs-extract --model "${MODEL:-builtin}" "$images" --root "$images" | ovs-cluster | ovs-refine | ovs-hier -o "$out/pseudo.json"

# Phase 2, self-instruction: a segmenter learns from these masks, whose faults it averages out. Finished runs have nothing left to do.
# shellcheck disable=SC2086  # options are words
${LAUNCH:-} ovs-train segment "$out/pseudo.json" --images "$images" --root "$images" -o "$out/segment" --resume ${SEGMENT:-}

# Phase 3, self-correction: it learns from its own moving average as well.
# shellcheck disable=SC2086
${LAUNCH:-} ovs-train correct "$out/pseudo.json" --images "$images" --root "$images" --from "$out/segment" -o "$out/correct" --resume ${CORRECT:-}

[ -e "$out/forest.json" ] || ovs-predict --checkpoint "$out/correct" "$images" --root "$images" -o "$out/forest.json"
if [ -n "$truth" ]; then
  # After each phase, on the same photographs.
  [ -e "$out/segment.json" ] || ovs-predict --checkpoint "$out/segment" "$images" --root "$images" -o "$out/segment.json"
  ovs-eval --gt "$truth" --metric ar --bootstrap 1000 "$out/pseudo.json" "$out/segment.json" "$out/forest.json"
fi
ovs-show "$out/forest.json" ${truth:+--gt "$truth"} --limit 20 -o "$out/page.html"
echo "forest: $out/forest.json"
echo "page:   $out/page.html (the first 20 images)"
