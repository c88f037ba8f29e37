"""The kernels of the cuda device behind every operator: on a card where there is one, else in Triton's interpreter.

`tests/devices/test_cuda.py` runs this folder in a process whose TRITON_INTERPRET is 1; without that and without a card
there is nothing to run here.
"""

import os
import warnings

import pytest
import torch

from ctnet.devices import cuda, open_device

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
collect_ignore_glob = [] if INTERPRETED or torch.cuda.is_available() else ["test_*.py"]


def pytest_configure(config):
    # numpy also computes what a mask drops afterwards
    config.addinivalue_line("filterwarnings", "ignore::RuntimeWarning:triton.runtime.interpreter")


def _mend_products(patch):
    """Triton's interpreter multiplies the bits of bf16 as if they were whole numbers."""
    from triton import language
    from triton.runtime.interpreter import InterpreterBuilder

    create_dot = InterpreterBuilder.create_dot

    def in_float32(builder, handle):
        return builder.create_fp_ext(handle, language.float32) if handle.dtype.scalar == language.bfloat16 else handle

    def mended(builder, left, right, *rest):
        return create_dot(builder, in_float32(builder, left), in_float32(builder, right), *rest)

    patch.setattr(InterpreterBuilder, "create_dot", mended)


@pytest.fixture(scope="session")
def interpreter():
    """Triton's interpreter, where it works; of older ones no loop counts with numpy 2.4."""
    import triton
    import triton.language as tl

    @triton.jit
    def count(where):
        for i in range(tl.program_id(0) + 1):
            tl.store(where, i)

    try:
        count[(1,)](torch.zeros(1))
    except Exception as error:
        pytest.skip(f"this Triton's interpreter does not work with this numpy: {error}")


@pytest.fixture
def device(request, monkeypatch):
    """Where the operators run on the kernels, float32 multiplied as such."""
    if INTERPRETED:
        request.getfixturevalue("interpreter")
        _mend_products(monkeypatch)
        with torch.library._scoped_library("ctnet", "IMPL") as library:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch says once that kernels are replaced, which is what is wanted
                for name, kernel in cuda.kernels().items():
                    if name != "soft_nms":  # runs on the host, whose operator it calls
                        library.impl(name, kernel, "CPU", allow_override=True)
            yield torch.device("cpu")
    else:
        opened = open_device("cuda")
        assert opened.plugin.register_kernels()["deform_conv2d"].startswith("Triton")
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
        yield opened.torch_device


@pytest.fixture
def card(device):
    """A real card."""
    if device.type == "cpu":
        pytest.skip("needs a card")
    return device
