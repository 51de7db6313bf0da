#!/usr/bin/env bash
# SOHES' self-exploration: photographs in, a forest of entities and parts out, scored where there is ground truth.
# Usage: examples/sohes-explore.sh IMAGES OUT [GROUND_TRUTH.json] [SHARDS]
#
# The work is one pipe, run shard by shard; a shard's masks appear whole or not at all. Killed at any moment and started
# again, it goes on with the first shard that is not there, and ends with the same bytes.
set -euo pipefail
images=$1
out=$2
truth=${3:-}
shards=${4:-8}
mkdir -p "$out"

for ((i = 0; i < shards; i++)); do
  masks=$(printf '%s/masks-%03d.json' "$out" "$i")
  [ -e "$masks" ] ||
    ovs-extract "$images" --root "$images" --shard "$i/$shards" | ovs-cluster | ovs-refine -o "$masks"
done

if [ -n "$truth" ]; then
  ovs-hier "$out"/masks-*.json | tee "$out/forest.json" | ovs-eval --gt "$truth" --metric ar --bootstrap 1000
else
  ovs-hier "$out"/masks-*.json -o "$out/forest.json"
fi
ovs-show "$out/forest.json" ${truth:+--gt "$truth"} --limit 20 -o "$out/page.html"
echo "forest: $out/forest.json"
echo "page:   $out/page.html (the first 20 images)"
