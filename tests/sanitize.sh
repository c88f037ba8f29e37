#!/bin/sh
# Runs the operator tests with kernels built under AddressSanitizer and UndefinedBehaviorSanitizer:
#     tests/sanitize.sh [pytest arguments]
# Needs g++ and an environment in which the tests run; PYTHON names its interpreter. Nothing of the project is changed.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cp -r "$root/src" "$work/src"
rm -f "$work"/src/ctnet/devices/cpu/_native*
suffix=$("$python" -c 'import importlib.machinery as m; print(m.EXTENSION_SUFFIXES[0])')
# the flags of pyproject.toml, less optimisation, plus the sanitizers; the first finding ends the run
g++ -shared -fPIC -std=c++17 -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all \
    -fopenmp-simd -ffp-contract=fast -fno-math-errno -fno-trapping-math -fno-signed-zeros -fassociative-math \
    -fvisibility=hidden -pthread "$work"/src/ctnet/devices/cpu/csrc/*.cpp -o "$work/src/ctnet/devices/cpu/_native$suffix"

# configs stay where the package looks for them in a checkout
cp -r "$root/configs" "$work/configs"
LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)" \
ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH="$work/src" \
    "$python" -m pytest -q -p no:cacheprovider "$root/tests/ops" "$root/tests/devices/test_cpu_kernels.py" \
    -k "not finite_differences and not operator_contract and not compiled_without" "$@"
