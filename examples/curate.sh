#!/usr/bin/env bash
# Concepts for the pairs of a folder of tar shards (img2dataset), by a CLIP's two towers:
#   examples/curate.sh SHARDS OUT [KEY]
# Needs the weights of clip:ViT-B-16/openai in the cache of the model hub, or --weights in $WEIGHTS.
set -euo pipefail
shards=$1 out=$2 key=${3:-}
weights=(${WEIGHTS:+--weights "$WEIGHTS"})
mkdir -p "$out"

ovs-extract --model "${MODEL:-clip:ViT-B-16/openai}" "${weights[@]}" --size 224 --pool cls --resume --skip-existing "$shards" -o "$out/rows.npz"
ovs-curate --mine --pairs "$shards" --min-count "${MIN_COUNT:-20}" -o "$out/terms.txt"
ovs-curate "$out/rows.npz" --pairs "$shards" --vocabulary "$out/terms.txt" "${weights[@]}" --resume --skip-existing -o "$out/curated.jsonl"
[ -z "$key" ] || ovs-curate --explain "$key" "$out/curated.jsonl"
