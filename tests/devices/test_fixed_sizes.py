"""Peaks and deformable convolution of devices with fixed shapes, run on a CPU: what the references return."""

import pytest
import torch

from ctnet.devices import host
from ctnet.devices.fixed_sizes import decode_peaks
from ctnet.devices.sdaa import deform_conv
from ctnet.engine.processes.world import _is_lost_contact
from ctnet.ops import deform_conv_reference
from ctnet.ops.peaks import reference_peaks


@pytest.mark.parametrize(
    ("shape", "top_k"), [((2, 5, 17, 23), 40), ((3, 8, 4, 5), 200), ((1, 1, 9, 1), 3), ((2, 80, 8, 8), 100)]
)
@pytest.mark.parametrize("values", ["ties", "apart", "flat", "not finite"])
def test_peaks_class_by_class_are_the_references(shape, top_k, values):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator)
    if values == "ties":
        logits = (logits * 2).round()
    elif values == "flat":
        logits = torch.full(shape, -3.0)
    elif values == "not finite":
        logits.view(-1)[::7] = torch.inf
        logits.view(-1)[3::11] = torch.nan
        logits.view(-1)[5::13] = -torch.inf
    for found, wanted in zip(decode_peaks(logits, top_k), reference_peaks(logits, top_k), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("masked", [True, False])
def test_gathered_rows_give_the_references_convolution_and_gradients(masked):
    generator = torch.Generator().manual_seed(0)
    x, offset = torch.randn(2, 6, 7, 5, generator=generator), torch.randn(2, 36, 7, 5, generator=generator) * 2
    weight, bias = torch.randn(4, 6, 3, 3, generator=generator), torch.randn(4, generator=generator)
    mask = torch.rand(2, 18, 7, 5, generator=generator) if masked else None
    window = ([1, 1], [1, 1], [1, 1])
    call = (x, offset, weight, bias, mask, *window)
    assert torch.allclose(deform_conv.forward(*call), deform_conv_reference.forward(*call), atol=1e-5)
    grads = (torch.randn(2, 4, 7, 5, generator=generator), x, offset, weight, mask, *window)
    for found, wanted in zip(deform_conv.backward(*grads), deform_conv_reference.backward(*grads), strict=True):
        assert torch.allclose(found, wanted, atol=1e-4)


def test_a_kernel_that_fails_is_replaced_by_the_processor_with_the_reason():
    def broken(*_):
        raise NotImplementedError("no kernel here\nand much more")

    found = host.tried({"decode_peaks": broken, "deform_conv2d": deform_conv.forward}, torch.device("cpu"))
    assert found.kernels["deform_conv2d"] is deform_conv.forward
    assert found.failures == {
        "decode_peaks": "CPU round trip (it fails on the device: NotImplementedError: no kernel here)"
    }
    logits = torch.randn(1, 2, 5, 5)
    for one, other in zip(found.kernels["decode_peaks"](logits, 3), reference_peaks(logits, 3), strict=True):
        assert torch.equal(one, other)


def test_errors_of_a_vendors_library_are_lost_contacts():
    for words, backend in (
        ("HCCL function error: hcclAllreduce, error code is 6", "hccl"),
        ("TCCL error: timeout", "tccl"),
    ):
        assert _is_lost_contact(RuntimeError(words), backend)
    assert not _is_lost_contact(RuntimeError("size mismatch"), "hccl")
