#!/usr/bin/env bash
# LightCluster: unsupervised semantic segmentation without training, from photographs to classes.
# Usage: examples/lightcluster.sh IMAGES OUT CLASSES [LABEL_MAPS [LAYOUT]]
#
# The foreground of each photograph by clusters of its features at three levels, refined by a CRF that starts from how sure they are, its
# pieces gathered in CLASSES clusters by what they look like. With LABEL_MAPS, a folder of ground truth, the clusters are matched with its
# classes, scored, and shown beside it. Started again, it goes on behind what is there. The paper's own features, whose weights are downloaded at first: MODEL=dino-vitb8.
set -euo pipefail
(($# >= 3)) || { sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//' >&2; exit 2; }
images=$1
out=$2
classes=$3
truth=${4:-}
layout=${5:-}
mkdir -p "$out"

# Features are read twice by ovs-cluster, so they are kept.
ovs-extract --model "${MODEL:-builtin}" --cls "$images" --root "$images" -o "$out/features.npz" --skip-existing

[ -e "$out/pieces.json" ] ||
  ovs-cluster --method lightcluster "$out/features.npz" | ovs-refine --method convcrf -o "$out/pieces.json"

[ -e "$out/classes.json" ] || ovs-label --clusters "$classes" "$out/pieces.json" "$out/features.npz" -o "$out/classes.json"

if [ -n "$truth" ]; then
  ovs-eval --metric miou --match hungarian ${layout:+--layout "$layout"} --gt "$truth" "$out/classes.json"
fi
ovs-show "$out/classes.json" ${truth:+--gt "$truth"} ${layout:+--layout "$layout"} --limit 20 -o "$out/page.html"
echo "classes: $out/classes.json"
echo "page:    $out/page.html (the first 20 images)"
