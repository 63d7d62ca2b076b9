#!/usr/bin/env bash
# Everything that needs a GPU, in one go: build for the GPU at hand, test, benchmark, all results into one folder.
#
#     tests/gpu/run.sh RESULTS [OPTION of plugins.bench]...
#
# Takes about ten minutes: each step has a limit of its own. A step that fails does not stop the next; the exit status
# says whether all went well. PYTHON names a Python with torch (for CUDA), numpy, onnx, click and pytest.
set -uo pipefail

if (($# == 0)) || [[ $1 == -* ]]; then
    echo "usage: $0 RESULTS [OPTION of plugins.bench]...   (RESULTS: a folder, which is made)" >&2
    exit 2
fi
results=$(mkdir -p "$1" && cd "$1" && pwd) || exit 2
shift
cd "$(dirname "$0")/../.." || exit 2
python=${PYTHON:-python3}
build=build/gpu
failed=()

step() { # NAME SECONDS COMMAND...: its output goes to the terminal and to NAME.txt
    local name=$1 seconds=$2 start=$SECONDS
    shift 2
    echo "== $name"
    timeout --kill-after=10 "$seconds" "$@" 2>&1 | tee "$results/$name.txt"
    local status=${PIPESTATUS[0]}
    echo "== $name: status $status after $((SECONDS - start)) s" | tee -a "$results/steps.txt"
    ((status == 0)) || failed+=("$name")
}

compile() {
    local architecture cmake headers=ON
    cmake=$("$python" -c 'from proscale_deploy.core import machine; print(machine.cmake().path)') || return
    architecture=$("$python" -c "from proscale_deploy.core.gpu import gpus
print(*{gpu.capability.replace('.', '') for gpu in gpus()}, sep=';')")
    "$python" -c 'from proscale_deploy.core import machine; raise SystemExit(machine.tensorrt_headers() is None)' ||
        headers=OFF
    "$cmake" -S plugins -B "$build" -DCMAKE_CUDA_ARCHITECTURES="${architecture:-native}" -DPROSCALE_TENSORRT="$headers" &&
        "$cmake" --build "$build" --parallel
}

machine() {
    nvidia-smi
    nvcc --version | tail -2
    git log -1 --format='%H %cI' 2>/dev/null
    "$python" - <<'PYTHON'
import platform, torch
print("python", platform.python_version(), "torch", torch.__version__)
raise SystemExit(None if torch.cuda.is_available() else "no CUDA GPU here, or a PyTorch that is not built for CUDA")
PYTHON
}

export -f compile machine
export python build PROSCALE_PLUGIN="$PWD/$build"
: >"$results/steps.txt"
step machine 20 bash -c machine
((${#failed[@]} == 0)) || exit 1
step build 110 bash -c compile
# Warnings of a newer torch or numpy are no concern here.
step tests 110 "$python" -m pytest tests/gpu -W default --junit-xml="$results/tests.xml" \
    --deselect tests/gpu/test_sanitizer.py --deselect tests/gpu/test_leaks.py
step bench 200 "$python" -m plugins.bench --quick --output "$results/bench.json" "$@"
step sanitizer 90 "$python" -m pytest tests/gpu/test_sanitizer.py -W default --junit-xml="$results/sanitizer.xml"
step sass 20 "$python" -m plugins.bench.sass "$build/libproscale_plugin.so"
step leaks 150 "$python" -m pytest tests/gpu/test_leaks.py -W default --junit-xml="$results/leaks.xml"

echo
cat "$results/steps.txt"
((${#failed[@]} == 0)) || { echo "failed: ${failed[*]}"; exit 1; }
