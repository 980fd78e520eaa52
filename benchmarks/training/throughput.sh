#!/usr/bin/env bash
# One GPU beside two, on a machine with two: all compile at once, then each is timed alone; after that training on two, resumed on one.
#     PYTHONPATH=src bash benchmarks/training/throughput.sh OUT [SECONDS, 200] [THREADS, 32]
set -u
here=$(dirname "$0") out=$1 budget=${2:-200} threads=${3:-32} began=$SECONDS
mkdir -p "$out"
export OMP_NUM_THREADS=4 TORCHINDUCTOR_COMPILE_THREADS=$((threads / 4)) PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
export TORCHINDUCTOR_CACHE_DIR="${TORCHINDUCTOR_CACHE_DIR:-$(mktemp -d)}" # of each user its own
two="python -m torch.distributed.run --standalone --nproc-per-node 2"
left() { echo $((budget - (SECONDS - began))); }
meet=$(mktemp -d)
run() { # name, launcher, variant: in the background
    timeout $((budget - 55)) $2 "$here/throughput.py" "$out/$1.json" --variants "$3" --meet "$meet" --number 4 --patience $((budget - 100)) \
        --timed 32 ${EXTRA:-} > "$out/$1.txt" 2>&1 &
}
run two-blocks "$two" "compiled blocks, 1 label in 8, twice the rows"
run one-blocks python "compiled blocks, 1 label in 8"
run two-steps "$two" "compiled steps, 1 label in 8, twice the rows"
sleep "${STAGGER:-8}" # the blocks are ready first, and have given their memory back when the steps are
run one-steps python "compiled steps, 1 label in 8"
wait
timeout $(($(left) - 3)) python "$here/several_gpus.py" "$(mktemp -d)" > "$out/several.txt" 2>&1 || echo "several_gpus.py ended with $?" >> "$out/several.txt"
python - "$out" <<'P'
import json, sys
from pathlib import Path

out, speed = Path(sys.argv[1]), {}
for name in ("one-blocks", "two-blocks", "one-steps", "two-steps"):
    file = out / f"{name}.json"
    found = list(json.loads(file.read_text()).values())[0] if file.exists() else {"error": "no record"}
    speed[name] = found.get("tokens_per_second", 0)
    print(name, f"{speed[name]:,.0f} tokens/s", found.get("device", found.get("error", "")[-300:]), found.get("gigabytes"))
for kind in ("blocks", "steps"):
    if speed[f"one-{kind}"] and speed[f"two-{kind}"]:
        print(kind, f"two / one = {speed[f'two-{kind}'] / speed[f'one-{kind}']:.3f}")
print((out / "several.txt").read_text()[-600:])
P
echo "$((SECONDS - began)) s"
