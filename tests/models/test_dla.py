"""The up path of DLA-34."""

import pytest
import torch

from ctnet.models.dla_neck import DlaNeck
from ctnet.nn import DeformConv2d
from ctnet.nn.upsample import bilinear_kernel
from ctnet.types import FeatureSpec


@pytest.mark.parametrize("deform", [True, False])
def test_the_neck_joins_all_maps_at_the_finest_stride(deform):
    channels = (4, 6, 8, 10)
    neck = DlaNeck([FeatureSpec(c, 4 << i) for i, c in enumerate(channels)], deform=deform).eval()
    assert any(isinstance(m, DeformConv2d) for m in neck.modules()) == deform
    maps = [torch.randn(1, c, 24 >> i, 40 >> i, requires_grad=True) for i, c in enumerate(channels)]
    joined = neck(maps)
    assert joined.shape == (1, neck.specs[0].channels, 24, 40)
    joined.sum().backward()
    assert all(m.grad.abs().sum() > 0 for m in maps)


def test_up_sampling_starts_bilinear():
    assert bilinear_kernel(4)[0].tolist() == [0.0625, 0.1875, 0.1875, 0.0625]
    assert bilinear_kernel(8)[3].tolist() == pytest.approx(
        [0.875 * w for w in (0.125, 0.375, 0.625, 0.875, 0.875, 0.625, 0.375, 0.125)]
    )
