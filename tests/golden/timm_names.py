"""Make `timm.npz`: `pip install timm==1.0.31 && python tests/golden/timm_names.py`."""

from pathlib import Path

import numpy as np
import timm

content = {}
for network in ("dla34", "mobilenetv2_100"):
    tensors = timm.create_model(network).state_dict()
    content[f"{network}/keys"] = np.array(list(tensors))
    content[f"{network}/shapes"] = np.array([" ".join(map(str, tensor.shape)) for tensor in tensors.values()])
np.savez_compressed(Path(__file__).with_name("timm.npz"), **content)
