#!/usr/bin/env bash
# One GPU beside two, on a machine with two: all compile at once, then take turns, so that each is timed alone, several rounds of each.
#     PYTHONPATH=src bash benchmarks/training/throughput.sh OUT [SECONDS, 150] [THREADS, 32] [RUNS]
# A run is GPUS:KIND or GPUS:KIND:SOURCES, SOURCES being another copy of src to compare with. Whoever is to be waited for as well touches a
# file ready-... in the folder MEET.
set -u
here=$(dirname "$0") out=$1 budget=${2:-150} threads=${3:-32} runs=${4:-"1:blocks 2:blocks 1:steps 2:steps"} began=$SECONDS
mkdir -p "$out"
export OMP_NUM_THREADS=4 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True GLOO_SOCKET_IFNAME=lo PYTHONUNBUFFERED=1
export TORCHINDUCTOR_CACHE_DIR="${TORCHINDUCTOR_CACHE_DIR:-$(mktemp -d)}"
number=$(wc -w <<< "$runs") meet=${MEET:-$(mktemp -d)}
export TORCHINDUCTOR_COMPILE_THREADS=$((threads / number > 2 ? threads / number : 2))
for run in $runs; do
    IFS=: read -r gpus kind sources <<< "$run"
    name=$gpus-$kind${sources:+-$(basename "$sources")} launch=python variant="compiled $kind, 1 label in 8"
    [ "$gpus" = 2 ] && launch="python -m torch.distributed.run --standalone --nproc-per-node 2" variant="$variant, twice the rows"
    rm -f "$out/$name.json"
    PYTHONPATH=${sources:+$sources:}$PYTHONPATH timeout -k 2 $((budget - 3)) $launch "$here/throughput.py" "$out/$name.json" --variants "$variant" --meet "$meet" \
        --number "$((number + ${OTHERS:-0}))" --patience $((budget - 12 * number)) --timed 16 --rounds 3 ${PROFILE:+--profile "$out/$name-kernels.txt"} ${EXTRA:-} > "$out/$name.txt" 2>&1 &
done
wait
python - "$out" <<'P'
import json, sys
from pathlib import Path

speed = {}
for file in sorted(Path(sys.argv[1]).glob("[12]-*.json")):
    found = next(iter(json.loads(file.read_text()).values()))
    speed[file.stem] = found.get("tokens_per_second", 0)
    rounds = " ".join(f"{1000 * seconds:.1f}" for seconds in found.get("rounds", []))
    print(f"{file.stem:28} {speed[file.stem]:10,.0f} tokens/s  ms an update: {rounds}  {found.get('device')} {found.get('gigabytes')} {found.get('error', '')[-300:]}")
for name, value in speed.items():
    kind = "-".join(name.split("-")[:2])
    if name.startswith("2") and speed.get("1" + kind[1:]):
        print(f"{name} / {'1' + kind[1:]} = {value / speed['1' + kind[1:]]:.3f}")
P
echo "$((SECONDS - began)) s"
