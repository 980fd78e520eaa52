#!/usr/bin/env bash
# One GPU beside two, on a machine with two: all compile at once, then each is timed alone. While they compile, training on one GPU, then two, then one.
#     PYTHONPATH=src bash benchmarks/training/throughput.sh OUT [SECONDS, 240] [THREADS, 32] [KINDS, "blocks steps"]
set -u
here=$(dirname "$0") out=$1 budget=${2:-240} threads=${3:-32} kinds=${4:-"blocks steps"} began=$SECONDS
mkdir -p "$out"
export OMP_NUM_THREADS=4 TORCHINDUCTOR_COMPILE_THREADS=$((threads / 4)) PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True GLOO_SOCKET_IFNAME=lo
export TORCHINDUCTOR_CACHE_DIR="${TORCHINDUCTOR_CACHE_DIR:-$(mktemp -d)}"
two="python -m torch.distributed.run --standalone --nproc-per-node 2"
meet=$(mktemp -d) runs=$(($(wc -w <<< "$kinds") * 2))
patience=$((budget - 15 - 12 * runs))
run() { # name, launcher, variant
    rm -f "$out/$1.json"
    timeout $((budget - 8)) $2 "$here/throughput.py" "$out/$1.json" --variants "$3" --meet "$meet" --number $((runs + 1)) --patience $patience \
        --timed 32 ${EXTRA:-} > "$out/$1.txt" 2>&1
}
for kind in $kinds; do
    run two-$kind "$two" "compiled $kind, 1 label in 8, twice the rows" &
    run one-$kind python "compiled $kind, 1 label in 8" &
done
(
    timeout -k 1 $patience python "$here/several_gpus.py" "$(mktemp -d)" > "$out/several.txt" 2>&1 || echo "several_gpus.py ended with $?" >> "$out/several.txt"
    touch "$meet/ready-several"
) &
wait
python - "$out" $kinds <<'P'
import json, sys
from pathlib import Path

out, speed = Path(sys.argv[1]), {}
for kind in sys.argv[2:]:
    for number in ("one", "two"):
        file = out / f"{number}-{kind}.json"
        found = list(json.loads(file.read_text()).values())[0] if file.exists() else {"error": "no record"}
        speed[number] = found.get("tokens_per_second", 0)
        print(number, kind, f"{speed[number]:,.0f} tokens/s", found.get("device", found.get("error", "")[-300:]), found.get("gigabytes"))
    if all(speed.values()):
        print(kind, f"two / one = {speed['two'] / speed['one']:.3f}")
print((out / "several.txt").read_text()[-600:])
P
echo "$((SECONDS - began)) s"
