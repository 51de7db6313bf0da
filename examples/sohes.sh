#!/usr/bin/env bash
# SOHES' self-exploration with the paper's backbone: DINO ViT-B/8 keys at 1024 x 1024, six thresholds, local re-clustering.
# Usage: examples/sohes.sh IMAGES MASKS.json
# The first run downloads the weights (or give them: WEIGHTS=dino_vitb8.safetensors). A GPU is taken where there is one.
set -euo pipefail
images=$1 masks=$2
weights=()
if [ -n "${WEIGHTS:-}" ]; then weights=(--weights "$WEIGHTS"); fi

ovs-extract --model dino-vitb8 --facet key --size 1024 "${weights[@]}" "$images" |
    ovs-cluster --thresholds 0.6..0.1 --small 1/1024 --local-size 256 --root "$images" "${weights[@]}" -o "$masks"
