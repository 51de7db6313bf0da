#!/usr/bin/env bash
# Train the networks that docs/notes/builtin.md compares, each alike but for one thing. Usage: bench/compare-training.sh POOL RUNS [NAME…]
# POOL is the folder of the pool's tars, RUNS a new or earlier folder; without names, all runs are made, one after the other.
# A run takes about fifteen minutes of one core, dino thirty; killed at any moment, the script goes on where it was. Then:
#   python bench/builtin.py --only NONE --purity --network conv=RUNS/conv/model.safetensors … --vit dino=timm:vit_tiny_patch16_224,RUNS/dino/model.safetensors
set -euo pipefail
(($# >= 2)) || { sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//' >&2; exit 2; }
here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$2"
runs=$(cd "$2" && pwd)
cd "$1"
shift 2
export OMP_NUM_THREADS=1
shipped=$here/core/models/builtin/builtin-v1.safetensors
common=(--resume --precision bf16 --device cpu -j 1)

# The masks that the network as it is shipped finds in the pool: the teacher of own and longer-own.
own_masks() {
  [[ -e $runs/own.json ]] || ovs-extract pool-*.tar --size 512 -j 1 | ovs-cluster --counts 200,100,50,25,12,6 -j 1 -o "$runs/own.json"
}

network() { # NAME OPTIONS…: 1,200 steps
  local name=$1
  shift
  ovs-train backbone pool-*.tar -o "$runs/$name" "${common[@]}" --steps 1200 "$@"
}

one() {
  case $1 in
    hybrid) network hybrid --cache "$runs/cache" ;;
    conv) network conv --cache "$runs/cache" --set attention=0 ;;
    own) own_masks && network own --cache "$runs/own-cache" --segments "$runs/own.json" ;;
    longer-own) own_masks && network longer-own --cache "$runs/own-cache" --segments "$runs/own.json" --init "$shipped" --lr 1e-3 ;;
    larger) network larger --cache "$runs/larger-cache" --set crop=192 --batch 14 --set shorter_side=256 ;;
    dino)
      ovs-train dino pool-*.tar -o "$runs/dino" "${common[@]}" --cache "$runs/dino-cache" --steps 900 --warmup 100 --batch 32 --lr 1e-3 \
        --set global_crop=128 --set local_crop=64 --set local_crops=4 --set prototypes=512 \
        --set teacher_temperature=0.04 --set warm_teacher=0 --set momentum=0.98
      ;;
    *) echo "compare-training.sh: no run $1; there are hybrid conv own longer-own larger dino" >&2; exit 2 ;;
  esac
}

for name in "${@:-hybrid conv own longer-own larger dino}"; do
  for each in $name; do one "$each"; done
done
