#!/usr/bin/env bash
# From photographs to a page with names on pixels and a legend, within masks that no label ever touched:
#   examples/open-vocabulary.sh IMAGES NAMES OUT
# NAMES is a label space: voc-21, a file with a name a line, or cat,dog,sky. Needs the weights of clip:ViT-B-16/openai in the cache of the
# model hub, or --weights in $WEIGHTS; or MODEL=run:DIR, two towers of ovs-train pairs. $PROXY says what belongs together (dino-vitb8).
set -euo pipefail
images=$1 names=$2 out=$3
naming=(--model "${MODEL:-clip:ViT-B-16/openai}" ${WEIGHTS:+--weights "$WEIGHTS"} --method corr --proxy "${PROXY:-dino-vitb8}" --names "$names")
mkdir -p "$out"

ovs-extract "$images" | ovs-cluster | ovs-refine --root "$images" -o "$out/masks.json"
ovs-predict "${naming[@]}" --masks "$out/masks.json" --maps "$out/maps" "$images" --root "$images" -o "$out/named.json"
ovs-show "$out/named.json" --root "$images" -o "$out/page.html"
