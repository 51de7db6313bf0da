#!/usr/bin/env bash
# All that is to be seen on a GPU, in one run of some minutes: is it correct, how fast is it, what does it learn.
#   bench/gpu.sh [--dry] [--minutes 9] [--from FILE] [--pack PACK] [--only correct,fast,learn]
#   bench/gpu.sh -- COMMAND …       that alone, with the commands of this checkout in its PATH
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
    --) shift && break ;;
    *) sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//' >&2; exit 2 ;;
  esac
  shift
done

wrong() { echo "gpu.sh: $*" >&2; exit 2; }
[[ $minutes =~ ^[1-9][0-9]*$ ]] || wrong "--minutes $minutes: give a whole number from 1 up"
[[ $only =~ ^((correct|fast|learn)(,|$))+$ ]] || wrong "--only $only: choose from correct, fast and learn"
[[ -z $begin || -r $begin ]] || wrong "--from $begin: cannot be read; give segmenter.safetensors or corrected.safetensors of an earlier run"
command -v "$python" > /dev/null || wrong "no $python here; name a Python with PYTHON=…"
[[ -z $begin ]] || begin=$(realpath "$begin")
[[ ! -d $pack ]] || pack=$(realpath "$pack")
# In miniature nothing takes long; but the machine may have other work, and what is there is to be seen to its end.
[[ -z $dry ]] || { minutes=60; export OMP_NUM_THREADS=1; }

alone=("$@")
begun=$SECONDS
mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd)
lines=$out/gpu.jsonl
((${#alone[@]})) || : > "$lines"
# The commands of this checkout, whether or not it is installed.
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
mkdir "$site/ovskit" "$site/bin"
ln -s "$here/core" "$here/cli" "$site/ovskit/"
for file in "$here"/man/ovs-*.1; do
  tool=$(basename "$file" .1)
  printf '#!/bin/sh\nexec "%s" -c "from ovskit.cli.%s import app; app()" "$@"\n' "$(command -v "$python")" "${tool#ovs-}" > "$site/bin/$tool"
done
chmod +x "$site/bin/"*
export PATH=$site/bin:$PATH OVSKIT_BIN=$site/bin PYTHONPATH=$site:$here/bench${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1

if ((${#alone[@]})); then
  "${alone[@]}"
  exit
fi
cd "$here" || exit 1
"$python" -m gpu.about --lines "$lines" $dry || exit 1
part() { # NAME SECONDS OPTIONS…: a part that is still at it half a minute after its time is ended; what it knew by then is written down
  [[ ,$only, == *,$1,* ]] || return 0
  echo "== $1, $2 s" >&2
  timeout --kill-after=10 $(($2 + 30)) "$python" -m "gpu.$1" --lines "$lines" "${@:3}" > "$out/$1.txt"
  "$python" -m gpu.lines "$lines" --ended "$1" --code $? # which adds a line if the part itself broke off
}
# Whether it is right comes first, since nothing else counts without it; learning has the minutes that are left.
part correct $((minutes * 15)) --seconds $((minutes * 15)) ${dry:+--pretend --together}
part fast $((minutes * 20)) --seconds $((minutes * 20)) $dry
left=$((minutes * 60 - (SECONDS - begun)))
part learn $left --out "$out" --pack "$pack" --minutes "$(awk "BEGIN {print $left / 60}")" ${begin:+--from "$begin"} ${dry:+--device cpu --jobs 2} $dry
"$python" -m gpu.lines "$lines" --markdown "$out/gpu.md"
! grep -q '"outcome": "failed"' "$lines"
