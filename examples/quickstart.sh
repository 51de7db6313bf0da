#!/usr/bin/env bash
# Regions of four photographs, from pixels to a page to look at. Usage: examples/quickstart.sh [FOLDER]
# The photographs are scikit-image's own (pip install 'ovskit[demo]'); no network and no GPU are needed.
set -euo pipefail
out=${1:-demo}
mkdir -p "$out/images"

python - "$out/images" <<'PYTHON'
import sys
from pathlib import Path

from PIL import Image
from skimage import data

for name in ("astronaut", "chelsea", "coffee", "rocket"):
    Image.fromarray(getattr(data, name)()).save(Path(sys.argv[1]) / f"{name}.png")
PYTHON

echo "ovs-extract $out/images | ovs-cluster > $out/masks.json"
ovs-extract "$out/images" | ovs-cluster > "$out/masks.json"

echo "ovs-refine $out/masks.json | ovs-hier > $out/forest.json"
ovs-refine "$out/masks.json" | ovs-hier > "$out/forest.json"

echo "ovs-show $out/forest.json --root $out/images -o $out/page.html"
ovs-show "$out/forest.json" --root "$out/images" -o "$out/page.html"

echo
echo "masks:  $out/masks.json ($(grep -c '"segmentation"' "$out/masks.json") regions, COCO format)"
echo "forest: $out/forest.json (refined, with parent_id; ovs-hier --tree $out/masks.json prints one)"
echo "page:   $out/page.html (open it in a browser)"
