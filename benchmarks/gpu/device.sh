#!/usr/bin/env bash
# What to do in a short time on a machine with one GPU and no network, stage by stage:
#
#     bash benchmarks/gpu/device.sh [SECONDS] STAGE...
#
# Stages: probe site kernels dali nvdec videos demo bench quick loader sanitize race. Each has a limit of its own, and none
# begins when fewer than 20 of SECONDS (600) are left. The last lines of each are printed; whole logs and results lie in
# $OUT. What pack.sh made in .parts is unpacked by `site`. DEVICE=cpu rehearses nvdec, bench and quick on a CPU.
set -uo pipefail
cd "$(dirname "$0")/../.."
WORK=${TMPDIR:-/tmp}/cacl_gpu
PYTHON=${PYTHON:-python3}
export PYTHON WORK DEVICE=${DEVICE:-cuda} OUT=${OUT:-$WORK/out} SITE=$WORK/site
export PYTHONPATH=$SITE:$PWD PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 OMP_WAIT_POLICY=PASSIVE
export NUMBA_CACHE_DIR=$WORK/numba TRITON_CACHE_DIR=$WORK/triton
[[ $DEVICE == cuda ]] && export CACL_REQUIRE_GPU=1
mkdir -p "$OUT/logs"
SECONDS_IN_ALL=600
[[ ${1:-} =~ ^[0-9]+$ ]] && { SECONDS_IN_ALL=$1; shift; }

remaining() { echo $((SECONDS_IN_ALL - SECONDS)); }

# stage NAME LIMIT LINES: runs the function of that name for up to LIMIT seconds, prints the last LINES of its log.
stage() {
    local name=$1 limit=$2 lines=$3 begun=$SECONDS
    (($(remaining) < 20)) && { echo "=== $name: no time left"; return; }
    ((limit > $(remaining) - 5)) && limit=$(($(remaining) - 5))
    timeout -k 5 "$limit" bash -c "$(declare -f "$name"); $name" >"$OUT/logs/$name.log" 2>&1
    echo "=== $name: exit $? after $((SECONDS - begun)) s of $limit"
    tail -n "$lines" "$OUT/logs/$name.log" | cut -c1-300
}

probe() {
    nvidia-smi --query-gpu=name,driver_version,memory.total,utilization.decoder --format=csv
    nproc
    free -g | sed -n 2p
    ldconfig -p | grep -E "nvcuvid|libcuda.so"
    $PYTHON -m pip list 2>/dev/null | grep -iE "^(torch|torchvision|triton|numpy|numba|timm|pytest|pytest-xdist|av) "
    $PYTHON -c 'import torch; print(torch.__version__, torch.cuda.is_available() and torch.cuda.get_device_name())'
}

site() {
    $PYTHON -m benchmarks.gpu.slim_wheels unpack "$SITE" .parts/[0-9]* || return
    $PYTHON -c 'import torch
from nvidia.dali import backend
from cacl.loaders.backends import dali
print("CUDA of the driver, as DALI sees it:", backend.GetCudaVersion())
print("what keeps DALI from running:", dali.unavailable_reason(torch.device("cuda", 0)))'
}

# Many processes share the work, since compiling takes most of the time. What is timed comes later, alone.
kernels() { $PYTHON -m pytest -q -p no:cacheprovider -rfE -n 12 tests/kernels/triton --junitxml="$OUT/kernels.xml"; }

dali() { $PYTHON -m pytest -q -p no:cacheprovider -rfE -n 6 -m gpu tests/loaders/backends/dali; }

nvdec() {
    local quick=(); [[ $DEVICE == cpu ]] && quick=(--quick)
    $PYTHON -m benchmarks.gpu.loader --device "$DEVICE" "${quick[@]}" --seconds 1.5 --out "$OUT/nvdec.json" \
        --only lifetime sizes colors colors_after_another_size affinity >/dev/null
}

videos() {
    $PYTHON -m cacl.cli data synth "$WORK/videos" --train 16 --test 4
    $PYTHON -m cacl.cli data prepare "$WORK/videos" "$WORK/prepared"
}

demo() {
    run() {
        $PYTHON -m cacl.cli train "$WORK/$2" --config demo --run "$WORK/$1" --set train.device="$DEVICE" "${@:3}" 2>&1 \
            | tail -8
    }
    time run cpu videos
    time run dali videos --set loader.backend=dali
    time run triton prepared --set loader.backend=dali --set loader.dali_views=triton
    # Of contrasts, only large ones go to the kernels.
    time run kernel videos --set contrast.queue_size=262144 --set contrast.negatives=both --set train.epochs=3
    $PYTHON -m cacl.cli eval retrieval "$WORK/cpu" --label appearance --label motion
}

bench() {
    $PYTHON -m benchmarks.gpu.kernels --device "$DEVICE" --repeats 3 --seconds 75 --out "$OUT"
}

quick() { $PYTHON -m benchmarks.gpu.loader --device "$DEVICE" --quick --budget 55 --out "$OUT/quick.json" >/dev/null; }

loader() {
    $PYTHON -m benchmarks.gpu.loader --device "$DEVICE" --seconds 1.5 --budget 310 --out "$OUT/gpu_loader.json" >/dev/null
}

sanitize() {
    compute-sanitizer --tool memcheck --error-exitcode 9 --launch-timeout 60 $PYTHON -m pytest -q -x \
        -p no:cacheprovider tests/kernels/triton/test_augment.py -k "sizes or edges or whole or lengths"
}

race() {
    compute-sanitizer --tool racecheck --error-exitcode 9 $PYTHON -m pytest -q -x -p no:cacheprovider \
        tests/kernels/triton/test_edit_distance.py -k sequences_of_any_number
}

# The driver's video decoder may lie where the loader does not look.
if ! ldconfig -p | grep -q libnvcuvid.so.1; then
    found=$(find /usr /opt -name libnvcuvid.so.1 -print -quit 2>/dev/null)
    [[ $found ]] && export LD_LIBRARY_PATH=${found%/*}:${LD_LIBRARY_PATH:-}
fi

for name in "$@"; do
    case $name in
    probe) stage probe 20 40 ;;
    site) stage site 60 8 ;;
    kernels) stage kernels 150 40 ;;
    dali) stage dali 90 40 ;;
    nvdec) stage nvdec 120 12 ;;
    videos) stage videos 60 4 ;;
    demo) stage demo 150 60 ;;
    bench) stage bench 120 60 ;;
    quick) stage quick 60 20 ;;
    loader) stage loader 330 40 ;;
    sanitize) stage sanitize 60 30 ;;
    race) stage race 60 30 ;;
    *) echo "=== $name: no such stage" ;;
    esac
done
echo "=== $SECONDS s in all"
