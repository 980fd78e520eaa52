#!/usr/bin/env bash
# Everything that throughput/README.md still wants, on a machine with two GPUs: about ten minutes.
#     PYTHONPATH=src bash benchmarks/training/throughput.sh OUT
set -u
here=$(dirname "$0") out=$1
export OMP_NUM_THREADS=8 TORCHINDUCTOR_CACHE_DIR="${TORCHINDUCTOR_CACHE_DIR:-$(mktemp -d)}"
two="python -m torch.distributed.run --standalone --nproc-per-node 2"
mkdir -p "$out"
# one GPU each, side by side; whole steps take a minute to compile
CUDA_VISIBLE_DEVICES=0 timeout 240 python "$here/throughput.py" "$out/one-a.json" \
    --variants "compiled blocks, 1 label in 8;compiled steps, 1 label in 8;plain, 1 label in 8" --profile "$out/kernels.txt" > "$out/one-a.txt" 2>&1 &
CUDA_VISIBLE_DEVICES=1 timeout 240 python "$here/throughput.py" "$out/one-b.json" \
    --variants "compiled steps, 1 label in 8, 128 tokens;compiled steps;plain" > "$out/one-b.txt" 2>&1 &
wait
# both together: 64 rows for each, as one GPU had
timeout 180 $two "$here/throughput.py" "$out/two.json" \
    --variants "compiled blocks, 1 label in 8, twice the rows;compiled steps, 1 label in 8, twice the rows" > "$out/two.txt" 2>&1
timeout 180 python "$here/several_gpus.py" "$(mktemp -d)" > "$out/several.txt" 2>&1
tail -n 3 "$out"/*.txt
