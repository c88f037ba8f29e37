"""DLA-34 against the original network."""

import re

import pytest

from ctnet.config import load_recipe
from ctnet.errors import ConfigError
from ctnet.models.build import build_network
from ctnet.nn.upsample import bilinear_kernel

UNUSED = re.compile(r"base\.level[34]\.project\.|base\.fc\.")  # in the original's files, but they feed nothing


def original_name(name: str) -> str:
    """Return the name that the original network gives to one of our tensors."""
    name = re.sub(r"root\.0\.", "root.conv.", re.sub(r"root\.1\.", "root.bn.", name))
    name = re.sub(r"neck\.rounds\.(\d)\.", r"dla_up.ida_\1.", name).replace("neck.last.", "ida_up.")
    name = re.sub(r"\.(proj|up|node)\.(\d)\.", lambda m: f".{m[1]}_{int(m[2]) + 1}.", name)
    return name.replace(".norm.", ".actf.0.").replace("offset_mask", "conv_offset_mask").replace("backbone.", "base.")


@pytest.fixture
def network():
    return build_network(load_recipe("centernet_dla34", []).recipe.model, 80)


@pytest.fixture
def theirs(original):
    return original("dla_34", original_name)


def test_every_tensor_of_the_original_is_there_but_the_unused(network, theirs):
    ours = {theirs.name_of(key) for key in network.state_dict()}
    assert ours <= theirs.keys
    assert all(UNUSED.match(name) for name in theirs.keys - ours)


def test_outputs_equal_the_original_with_the_same_weights(network, theirs):
    theirs.assert_outputs_equal(theirs.fill(network))


def test_gradients_equal_the_original(network, theirs, shared):
    theirs.assert_gradients_equal(theirs.fill(network), shared)


def test_up_sampling_starts_bilinear():
    assert bilinear_kernel(4)[0].tolist() == [0.0625, 0.1875, 0.1875, 0.0625]
    assert bilinear_kernel(8)[3].tolist() == pytest.approx(
        [0.875 * w for w in (0.125, 0.375, 0.625, 0.875, 0.875, 0.625, 0.375, 0.125)]
    )


def test_a_plain_neck_is_refused():
    with pytest.raises(ConfigError, match="deformable neck only"):
        load_recipe("centernet_dla34", ["model.neck=plain"])
