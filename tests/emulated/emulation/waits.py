"""Counts the places where the host waits for the device."""

import sys

import torch

aten = torch.ops.aten


def count(operator, args, kwargs):
    """Count an operator that a real device cannot finish without the host waiting for all work before it."""
    if _waits(operator, args, kwargs):
        note(str(operator))


def note(what):
    """Count a wait at the innermost line of ctnet that the call came from."""
    from emulation.tensor import WAITS

    frame = sys._getframe(1)
    while frame is not None and "/src/ctnet/" not in frame.f_code.co_filename:
        frame = frame.f_back
    place = "elsewhere"
    if frame is not None:
        place = f"{frame.f_code.co_filename.partition('/src/ctnet/')[2]}:{frame.f_code.co_name}"
    WAITS[f"{place} {what}"] += 1


def _waits(operator, args, kwargs):
    from emulation.tensor import CardTensor

    if operator in (
        aten._local_scalar_dense.default,
        aten.nonzero.default,
        aten.masked_select.default,
        aten.equal.default,
    ):
        return isinstance(args[0], CardTensor)
    if operator is aten.copy_.default:  # also copies to the device: without page-locked memory the host waits for them
        non_blocking = kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
        return isinstance(args[0], CardTensor) != isinstance(args[1], CardTensor) and not non_blocking
    if operator is aten._to_copy.default and isinstance(args[0], CardTensor):
        device = kwargs.get("device")
        return device is not None and torch.device(device).type == "cpu" and not kwargs.get("non_blocking", False)
    return False
