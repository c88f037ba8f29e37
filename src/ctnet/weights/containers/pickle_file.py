"""Plain pickles of numpy arrays, as detectron2 and Caffe2 write them (`.pkl`, Python 2 and 3)."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from mmap import mmap
from pathlib import Path
from typing import Any

from ctnet.errors import WeightsError
from ctnet.weights.containers.inert import NUMPY
from ctnet.weights.containers.mapped import mapped
from ctnet.weights.containers.pickle_scan import scan
from ctnet.weights.containers.refusals import damaged, foreign_code


def load_pickle(path: Path) -> Any:
    """Return the object in the file: plain values, dictionaries, lists and inert arrays; nothing is executed.

    Raises WeightsError that names the first thing the file asks for beyond numpy arrays.
    """
    try:
        with mapped(path) as data:
            scan(data)
            data.seek(0)
            return _Unpickler(data, path).load()
    except WeightsError:
        raise
    except Exception as error:  # broken pickles raise almost anything
        raise damaged(path, error) from None


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: mmap, path: Path) -> None:
        super().__init__(data, encoding="latin1")  # what numpy asks for of Python 2's arrays
        self._path = path

    def find_class(self, module: str, name: str, /) -> Any:
        """Return the stand-in for a name, and never what the name stands for."""
        full = f"{module}.{name}"
        if full == "collections.OrderedDict":
            return OrderedDict
        if full not in NUMPY:
            raise foreign_code(self._path, full)
        return NUMPY[full]
