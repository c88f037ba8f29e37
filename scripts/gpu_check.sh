#!/bin/bash
# What has to be seen on a GPU, in eight minutes: conformance, kernels, benchmarks and a short training, without network.
#
#   scripts/gpu_check.sh [--device cuda] [--data BCCD] [--wheels FOLDER] [--out FOLDER] [--seconds 120] [--small]
#
# Missing packages are installed from the wheels in FOLDER. A part that fails or takes too long is a row of the table,
# and the others run all the same. Writes FOLDER/gpu_check.json and a log of each part; ends with 0 if all passed, else 1.
# --small takes sizes that a CPU manages in a minute.
set -u
cd "$(dirname "$0")/.."
device=cuda data="" wheels="" out=gpu_check seconds=120 small=""
while [ $# -gt 0 ]; do
    case $1 in
        --device) device=$2; shift 2 ;;
        --data) data=$2; shift 2 ;;
        --wheels) wheels=$2; shift 2 ;;
        --out) out=$2; shift 2 ;;
        --seconds) seconds=$2; shift 2 ;;
        --small) small=1; shift ;;
        *) echo "unknown option $1"; exit 2 ;;
    esac
done
mkdir -p "$out"
out=$(cd "$out" && pwd)
parts=$out/parts.tsv
: > "$parts"
python=${PYTHON:-python3}
export PYTHONPATH=${PYTHONPATH:-} CTNET_HOME=$out/home NO_ALBUMENTATIONS_UPDATE=1

part() {  # part NAME SECONDS COMMAND...: run it, keep its log, remember how it ended
    local name=$1 limit=$2 begin code
    shift 2
    echo "== $name"
    begin=$(date +%s.%N)
    timeout -k 5 "$limit" "$@" > "$out/$name.log" 2>&1
    code=$?
    printf '%s\t%s\t%s\t%s\n' "$name" "$code" "$begin" "$(date +%s.%N)" >> "$parts"
}

if ! "$python" -c 'import ctnet, typer, pydantic, albumentations, pycocotools' 2> /dev/null; then
    find=${wheels:+--no-index --find-links "$wheels"}
    # shellcheck disable=SC2086
    part install 90 "$python" -m pip install -q $find --no-build-isolation -e .
fi
on_gpu=$([ "$device" = cpu ] || echo 1)
part doctor 40 "$python" -m ctnet doctor --json
part conformance 90 "$python" -m ctnet.devices.conformance --device "$device" ${small:+--processes 1}
[ -n "$on_gpu" ] && part kernels 120 "$python" -m pytest -q -x tests/devices/cuda
benchmark() { part "benchmark_$1" 60 "$python" "benchmarks/$1.py" --device "$device" --json "$out/$1.json" "${@:2}"; }
if [ -n "$small" ]; then
    benchmark model --size 64 --batches 1 --no-compile --repeats 2
    benchmark train_step --cases 64x2 --repeats 2
else
    benchmark deform_conv
    benchmark model
    benchmark train_step
    benchmark decode
fi
size=256 epochs=24
[ -n "$small" ] && size=64 epochs=1
# shellcheck disable=SC2086
part training "$((seconds + 30))" timeout -s INT "$seconds" "$python" -m ctnet train ${data:+--data "$data"} \
    --device "$device" --image-size $size --epochs $epochs --out "$out/run" --json ${small:+--max-steps 3 data.workers=1}

"$python" - "$out" "$device" << 'END'
import json
import sys
from pathlib import Path

out, device = Path(sys.argv[1]), sys.argv[2]
rows = []
for line in (out / "parts.tsv").read_text().splitlines():
    name, code, begin, end = line.split("\t")
    log = (out / f"{name}.log").read_text(errors="replace").strip().splitlines()
    verdict = {"0": "passed", "124": "too slow", "137": "too slow"}.get(code, f"failed ({code})")
    if name == "training" and verdict != "passed" and any("everything is saved" in one for one in log):
        verdict = "stopped in time"
    rows.append({"part": name, "verdict": verdict, "seconds": round(float(end) - float(begin), 1), "last": log[-1:] or [""]})
figures = {}
for file in sorted(out.glob("*.json")):
    if file.name != "gpu_check.json":
        try:
            figures[file.stem] = json.loads(file.read_text())
        except ValueError:
            figures[file.stem] = None
document = {"schema": "ctnet.gpu_check/1", "device": device, "parts": rows, "figures": figures}
(out / "gpu_check.json").write_text(json.dumps(document, indent=2) + "\n")
for row in rows:
    print(f"{row['part']:<24}{row['verdict']:<18}{row['seconds']:>7.1f} s  {row['last'][0][:70]}")
print(out / "gpu_check.json")
sys.exit(any(row["verdict"] not in ("passed", "stopped in time") for row in rows))
END
