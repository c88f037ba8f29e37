"""Broken bytes of every kind: either tensors come out or a WeightsError, in time."""

import random

import pytest

from ctnet.errors import WeightsError
from ctnet.weights.containers import read_container

ROUNDS = 200


def damage(content: bytes, rng: random.Random) -> bytes:
    """Change, drop, double or cut a few bytes."""
    broken = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(broken) or 1)
        match rng.randrange(8):
            case 0:
                del broken[at:]
            case 1:
                del broken[at : at + rng.randint(1, 9)]
            case 2:
                broken[at:at] = broken[at : at + rng.randint(1, 9)]
            case 3:
                broken[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0"))
            case _:
                broken[at : at + 1] = bytes([rng.randrange(256)])
    return bytes(broken)


@pytest.mark.parametrize("kind", ["torch", "torch-legacy", "pickle", "mindspore", "safetensors"])
def test_broken_bytes(kind, save, odd_tensors):
    rng = random.Random(f"{kind} 11")
    file = save(kind, odd_tensors)
    whole = file.read_bytes()
    read = refused = 0
    for _ in range(ROUNDS):
        file.write_bytes(damage(whole, rng))
        try:
            container = read_container(file)
        except WeightsError:
            refused += 1
        else:
            read += 1
            for tensor in container.tensors.values():  # the numbers are there
                tensor.double().sum()
    assert read + refused == ROUNDS
    assert refused > ROUNDS // 4
