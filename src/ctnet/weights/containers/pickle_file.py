"""Plain pickles of numpy arrays, as detectron2 and Caffe2 write them (`.pkl`, Python 2 and 3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ctnet.weights.containers.inert import EXTRAS, NUMPY
from ctnet.weights.containers.mapped import mapped
from ctnet.weights.containers.pickle_machine import Machine
from ctnet.weights.containers.refusals import explaining


def load_pickle(path: Path) -> Any:
    """Return the object in the file: plain values, dictionaries, lists and inert arrays; nothing is executed.

    Raises WeightsError that names the first thing the file asks for beyond numpy arrays.
    """
    with explaining(path), mapped(path) as data:
        return Machine(data, len(data), {**NUMPY, **EXTRAS}).load()
