"""What is measured: recipes, weights, exported files, and the size they are shown images at."""

import pytest
import torch

from ctnet.bench.subject import open_subject
from ctnet.errors import ConfigError, WeightsError


@pytest.mark.parametrize(
    ("config", "image_size", "expected"),
    [
        (None, None, (640, 640)),  # 512, enlarged by 1.25 for testing
        ("centernet_resdcn18_coco", None, (512, 512)),  # keeps resolution
        ("centernet_mobilenetv2", (64, 96), (64, 96)),
    ],
)
def test_a_recipe_is_measured_at_one_size_with_random_weights(config, image_size, expected):
    subject = open_subject(config, None, image_size)
    settings = subject.recipe.evaluation
    assert subject.recipe.data.image_size == expected
    assert (settings.keep_res, settings.flip, settings.scales, settings.test_scale) == (False, False, (1.0,), 1.0)
    assert subject.source == "random weights"
    assert "random weights" in subject.notes[0]
    assert subject.weights.recipe == subject.recipe
    assert subject.to_dict()["operations_per_image"] > 1e6


def test_a_size_that_the_network_does_not_take_is_refused():
    with pytest.raises(ConfigError, match="image_size"):
        open_subject("centernet_hourglass104", None, (96, 96))


def test_weights_bring_their_recipe(small_files):
    subject = open_subject(None, small_files / "small.safetensors", None)
    random = open_subject("centernet_mobilenetv2", None, (64, 96))
    assert subject.recipe.data.image_size == (64, 96)
    assert subject.exported is None
    expected = random.network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in subject.network.state_dict().items())


def test_an_exported_file_is_measured_as_it_is(small_files):
    subject = open_subject(None, small_files / "small.pt2", None, trust=True)
    assert subject.network is None
    assert subject.exported[1].name == "pt2"
    assert subject.recipe.data.image_size == (64, 96)
    assert any("its batch is 2" in note for note in subject.notes)
    assert subject.operations_per_image == open_subject("centernet_mobilenetv2", None, (64, 96)).operations_per_image
    with pytest.raises(ConfigError, match="fixed input size") as caught:
        open_subject(None, small_files / "small.pt2", (64, 64), trust=True)
    assert (caught.value.facts["expected"], caught.value.facts["got"]) == ("64x96", "64x64")
    with pytest.raises(ConfigError, match="own recipe"):
        open_subject("demo", small_files / "small.pt2", None)


@pytest.mark.parametrize("name", ["gone.safetensors", "gone.pt2"])
def test_a_missing_file_is_named(name, tmp_path):
    with pytest.raises(WeightsError) as caught:
        open_subject(None, tmp_path / name, None)
    assert caught.value.facts["file"].endswith(name)
