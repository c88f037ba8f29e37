"""The cuda plug-in without a card: its kernels interpreted, built for real chips, and left out with a reason."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import ctnet.ops  # noqa: F401  declares the operators
from ctnet.devices import cuda
from ctnet.ops.table import REQUIRED

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed; it is for Linux")
SHARED_MEMORY = 99 << 10  # bytes that a program may have on any card from Ampere on


@needs_triton
def test_every_kernel_gives_the_references_numbers_in_tritons_interpreter():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", Path(__file__).parent / "cuda"],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:]
    if "passed" not in done.stdout:
        pytest.skip(done.stdout[-300:])


def build(kernel, arguments, capability):
    """Compile a kernel as a launch with these arguments would, for a card that need not be there."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    options = {
        name: arguments.pop(name) for name in ("num_warps", "num_stages", "enable_fp_fusion") if name in arguments
    }
    signature, constants, divisible = {}, {}, {}
    for place, parameter in enumerate(kernel.params):
        value = arguments[parameter.name]
        if parameter.is_constexpr or value is None or (isinstance(value, int) and value == 1):
            signature[parameter.name], constants[parameter.name] = "constexpr", value
            continue
        number = value.data_ptr() if isinstance(value, torch.Tensor) else value
        signature[parameter.name] = POINTERS[value.dtype] if isinstance(value, torch.Tensor) else "i32"
        if number % 16 == 0:
            divisible[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, divisible)
    return compile(source, target=GPUTarget("cuda", capability, 32), options=options)


POINTERS = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float64: "*fp64",
    torch.int32: "*i32",
    torch.int64: "*i64",
}


def launch_convolution(dtype):
    """Call the deformable convolution, forward and backward, on the shapes of a real network."""
    run = cuda.kernels()
    last = torch.channels_last
    x, side = (torch.zeros(2, c, 64, 64).to(dtype, memory_format=last) for c in (64, 27))
    weight, pairs = torch.zeros(64, 64, 3, 3).to(dtype, memory_format=last), [[1, 1]] * 3
    out = run["deform_conv2d"](x, side[:, :18], weight, weight[:, 0, 0, 0], side[:, 18:], *pairs)
    run["deform_conv2d_backward"](out, x, side[:, :18], weight, side[:, 18:], *pairs)
    run["deform_conv2d"](x[:, :1], side[:, :18], weight[:1, :1], None, None, *pairs)  # every size 1 is a constant


def launch_the_rest(dtype):
    """Call the other operators."""
    run = cuda.kernels()
    x = torch.zeros(2, 64, 64, 64).to(dtype, memory_format=torch.channels_last)
    weight = torch.zeros(64, 1, 4, 4).to(dtype)
    out = run["depthwise_upsample"](x, weight, 2, 1)
    run["depthwise_upsample_backward"](out, x, weight, 2, 1)
    run["decode_peaks"](x, 100)
    run["decode_peaks"](x.contiguous(), 100)
    rois, index = torch.zeros(9, 4), torch.zeros(9, dtype=torch.int64)
    bins = run["roi_align"]([x, x[:, :, :32, :32]], rois, index, index, [4.0, 8.0], 7, 0, True)
    run["roi_align_backward"](bins, rois, index, index, 2, [64, 64, 32, 32], [4.0, 8.0], 0, True)
    run["nms"](torch.zeros(90, 4), torch.zeros(90), torch.zeros(90, dtype=torch.int64), 0.5, False)


@pytest.fixture
def build_for(tmp_path, monkeypatch):
    """Have launches build for a chip instead: `build_for(capability)` returns the programs by name, filled later."""
    from triton.runtime.jit import JITFunction

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))

    def start(capability):
        built = {}

        def instead_of_launching(kernel, *given, grid, warmup, **named):
            result = build(kernel, dict(zip(kernel.arg_names, given, strict=False)) | named, capability)
            built.setdefault(kernel.__name__, []).append(result)

        monkeypatch.setattr(JITFunction, "run", instead_of_launching)
        return built

    return start


def most_shared_memory(built) -> int:
    return max(program.metadata.shared for programs in built.values() for program in programs)


@needs_triton
@pytest.mark.parametrize(("capability", "dtype"), [(80, torch.float32), (90, torch.bfloat16)], ids=["Ampere", "Hopper"])
def test_the_convolution_builds_for_real_chips_with_their_tensor_cores(capability, dtype, build_for):
    built = build_for(capability)
    launch_convolution(dtype)
    assert set(built) == {"_deform_forward", "_deform_map_and_sides", "_deform_weight"}
    assert most_shared_memory(built) <= SHARED_MEMORY
    for name, programs in built.items():
        assert "mma" in programs[0].asm["ptx"], f"{name} uses no tensor cores"


@needs_triton
@pytest.mark.parametrize(("capability", "dtype"), [(80, torch.float32), (90, torch.bfloat16)], ids=["Ampere", "Hopper"])
def test_the_other_kernels_build_for_real_chips(capability, dtype, build_for):
    built = build_for(capability)
    launch_the_rest(dtype)
    assert set(built) == {
        "_upsample", "_upsample_map", "_upsample_weight", "_best_of_tiles", "_keys_of_tiles", "_overlaps", "_walk",
        "_roi_pool", "_roi_spread",
    }  # fmt: skip
    assert most_shared_memory(built) <= SHARED_MEMORY


def test_without_triton_the_references_run_and_say_why(monkeypatch):
    monkeypatch.setattr(cuda, "find_spec", lambda name: None)
    told = cuda.device().register_kernels()
    assert told == dict.fromkeys(REQUIRED, "reference (Triton is not installed)")
    assert not torch._C._dispatch_has_kernel_for_dispatch_key("ctnet::nms", "CUDA")


@needs_triton
def test_a_triton_that_breaks_is_the_reference_with_its_first_line(monkeypatch):
    from ctnet.devices.cuda import trial

    def fail():
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")

    monkeypatch.setattr(trial, "run", fail)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for capability, reason in (((9, 0), "RuntimeError: Failed to find C compiler."), ((7, 5), "the GPU has 7.5")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda found=capability: found)
        told = cuda.device().register_kernels()
        assert set(told) == set(REQUIRED)
        assert all(text.startswith("reference (") and text.endswith(f"{reason})") for text in told.values())


@needs_triton
def test_registered_kernels_are_behind_the_operators_of_cuda_alone():
    program = """
import torch
import ctnet.ops  # noqa: F401  declares the operators
from ctnet.devices import cuda
from ctnet.ops.table import REQUIRED
told = cuda.device().register_kernels()
has = torch._C._dispatch_has_kernel_for_dispatch_key
print(*[name for name in REQUIRED if has(f"ctnet::{name}", "CUDA") and not told[name].startswith("reference")])
print(*[name for name in REQUIRED if has(f"ctnet::{name}", "CPU")])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [" ".join(REQUIRED), ""]


@pytest.mark.parametrize(
    ("allowed", "override", "expected"), [(True, "", "tf32"), (False, "", "ieee"), (True, "0", "ieee")]
)
@needs_triton
def test_float32_is_multiplied_as_torchs_convolutions_multiply_it(allowed, override, expected, monkeypatch):
    from ctnet.devices.cuda import sampling

    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", override)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
    x, offset, weight = torch.zeros(1, 2, 3, 3), torch.zeros(1, 18, 3, 3), torch.zeros(2, 2, 3, 3)
    assert sampling.arguments(x, offset, weight, None, [1, 1], [1, 1], [1, 1])["PRECISION"] == expected
