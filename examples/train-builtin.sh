#!/usr/bin/env bash
# Train the built-in network again, from photographs alone. Usage: examples/train-builtin.sh PHOTOGRAPHS… RUN
# Photographs are files, folders or tar shards. The work goes in pieces of ten minutes, each from the checkpoint of the one
# before, so it can be killed at any moment and fits into short slots of a shared machine; start it again and it goes on.
# About an hour on two cores for 8,926 small photographs. RUN/model.safetensors is the result:
#   ovs-extract --weights RUN/model.safetensors imgs/ | ovs-cluster | ovs-refine > masks.json
set -euo pipefail
(($# >= 2)) || { sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//' >&2; exit 2; }
run=${!#}
photographs=("${@:1:$#-1}")

# PRECISION=bf16 is faster on a CPU that has it; auto takes it on a GPU by itself.
precision=${PRECISION:-auto}
until ovs-train backbone "${photographs[@]}" -o "$run" --resume --minutes "${MINUTES:-10}" --precision "$precision" ${TRAIN_OPTIONS:-}; do
  (($? == 3)) || exit 1 # 3: the minutes are over, the run is not
done
