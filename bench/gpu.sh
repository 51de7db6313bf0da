#!/usr/bin/env bash
# All that is to be seen on a GPU, in one run of some minutes: is it correct, how fast is it, what does it learn.
#   bench/gpu.sh [--dry] [--minutes 9] [--from FILE] [--pack PACK] [--only correct,fast,learn]
# One card, no network; any Python from 3.11 with torch 2.11 or newer ($PYTHON, default python3). ovskit need not be installed.
# PACK (default: build/gpu-pack in the checkout) is what bench/gpu_pack.py makes, beforehand, on a CPU. FILE is segmenter.safetensors
# or corrected.safetensors of an earlier run, to go on from. --dry does all of it in miniature on the CPU, to see that it works.
# Results go to $OUT (default: build/gpu): gpu.jsonl, a line for each thing seen, as soon as it is; gpu.md, the table; the segmenters.
# No part stops at its first failure. Ends with 0 if nothing failed, 1 if something did.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
out=${OUT:-$here/build/gpu}
pack=$here/build/gpu-pack
minutes=9 dry='' begin='' only=correct,fast,learn
while (($#)); do
  case $1 in
    --dry) dry=--dry ;;
    --minutes) minutes=${2:?minutes} && shift ;;
    --from) begin=${2:?a file} && shift ;;
    --pack) pack=${2:?a folder} && shift ;;
    --only) only=${2:?parts} && shift ;;
    *) sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//' >&2; exit 2 ;;
  esac
  shift
done

begun=$SECONDS
mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd)
lines=$out/gpu.jsonl
: > "$lines"
# The commands of this checkout, whether or not it is installed.
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
mkdir "$site/ovskit" "$site/bin"
ln -s "$here/core" "$here/cli" "$site/ovskit/"
for tool in extract cluster refine hier label train predict eval show; do
  printf '#!/bin/sh\nexec "%s" -c "from ovskit.cli.%s import app; app()" "$@"\n' "$python" "$tool" > "$site/bin/ovs-$tool"
done
chmod +x "$site/bin/"*
export PATH=$site/bin:$PATH PYTHONPATH=$site:$here:$here/bench${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

cd "$here" || exit 1
"$python" bench/gpu_about.py --lines "$lines" $dry || exit 1
left() { echo $((minutes * 60 - (SECONDS - begun))); }
within() { # SECONDS COMMAND…: with time to write down what it knows, before it is killed
  timeout --signal=TERM --kill-after=10 "$@"
}
# Shares of the minutes: correctness first, since nothing else counts without it.
if [[ ,$only, == *,correct,* ]]; then
  echo "== correct" >&2
  within $((minutes * 60 / 4 + 30)) "$python" bench/gpu_correct.py --lines "$lines" --seconds $((minutes * 60 / 4)) ${dry:+--pretend}
fi
if [[ ,$only, == *,fast,* ]]; then
  echo "== fast" >&2
  within $((minutes * 60 / 3 + 30)) "$python" bench/gpu_fast.py --lines "$lines" --seconds $((minutes * 60 / 3)) $dry
fi
if [[ ,$only, == *,learn,* ]]; then
  echo "== learn" >&2
  rest=$(left)
  within $((rest + 30)) "$python" bench/gpu_learn.py --lines "$lines" --out "$out" --pack "$pack" --minutes "$(awk "BEGIN {print $rest / 60}")" \
    ${begin:+--from "$begin"} ${dry:+--device cpu --jobs 2} $dry
fi
"$python" bench/gpu_lines.py "$lines" --markdown "$out/gpu.md"
! grep -q '"outcome": "failed"' "$lines"
