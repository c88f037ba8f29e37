"""Whole networks against the originals: weights rebuilt from the names that the originals give them."""

import copy
import json
import re
import zlib

import numpy as np
import pytest
import torch

from ctnet.config import CenterFaceModel, CenterNetModel, PoseModel
from ctnet.families import assumed_keypoints, build_network
from ctnet.weights.names import detector_pairs, foreign_names
from originals import recipe

PLAIN = {"neck": "plain", "neck_channels": (256, 256, 256)}
WHOLE = {
    "res_18": CenterNetModel(**PLAIN),
    "resdcn_18": CenterNetModel(),
    "dla_34": CenterNetModel(backbone="dla34", head_channels=256),
    "dlav0_34": CenterNetModel(backbone="dla34", neck="plain", head_channels=256),
    "hourglass": CenterNetModel(backbone="hourglass104", head_channels=256),
    "mmdet_centernet_r18-dcnv2": CenterNetModel(deform_bias=False),
    "mp_dla_34": PoseModel(backbone="dla34", head_channels=256),
    "mp_resdcn_18": PoseModel(),
    "mp_hourglass": PoseModel(backbone="hourglass104", head_channels=256),
    "centerface_mobilev2_10": CenterFaceModel(),
}
KEYS_ONLY = {
    "res_50": CenterNetModel(backbone="resnet50", **PLAIN),
    "resdcn_101": CenterNetModel(backbone="resnet101"),
    "mmdet_centernet_r18": CenterNetModel(neck="conv"),
    "centerface_mobilev2_10_hc24": CenterFaceModel(neck_channels=(256, 128, 24)),
}
# in the files of both DLA networks, but they feed nothing
UNUSED = re.compile(r"base\.level[34]\.project\.|base\.fc\.")


def pairs_of(name, model):
    projects = {"mmdet": "mmdet", "cente": "centerface"}
    return detector_pairs(projects.get(name[:5], "centernet"), model)


def network_of(model):
    """Return our network of a detector of COCO's classes, of people or of faces."""
    keypoints = assumed_keypoints(model)
    return build_network(model, 80 if keypoints is None else 1, keypoints)


class Original:
    """One of our networks in float64 with the original's weights, and the original's numbers."""

    def __init__(self, name, model, file):
        self.name, self.file, self.pairs = name, file, pairs_of(name, model)
        network = network_of(model)
        own = network.state_dict()
        names = foreign_names(own, self.pairs)
        for key, tensor in own.items():
            tensor.copy_(torch.from_numpy(recipe.recipe_tensor(names[key], tensor.shape, tensor.is_floating_point())))
        self.network = network.double().eval()

    def answers(self, network, x):
        """Return the outputs under the original's names."""
        stacks = [self._named(heads) for heads in network(x)]
        if len(stacks) == 1:
            return stacks[0]
        return {f"stack{i}/{name}": out for i, heads in enumerate(stacks) for name, out in heads.items()}

    def _named(self, heads):
        if self.name.startswith("centerface"):
            names = {"log_size": "wh", "offset": "hm_offset", "landmarks": "landmarks"}
            return {"hm": heads["heatmap_logits"].sigmoid()} | {theirs: heads[ours] for ours, theirs in names.items()}
        heatmap, size, offset = heads["heatmap_logits"], heads["size"], heads["offset"]
        if self.name.startswith("mmdet"):
            return {"center_heatmap_sigmoid": heatmap.sigmoid(), "wh": size, "offset": offset}
        more = {"keypoints": "hps", "keypoint_logits": "hm_hp", "keypoint_offset": "hp_offset"}
        further = {theirs: heads[ours] for ours, theirs in more.items() if ours in heads}
        return {"hm": heatmap, "wh": size, "reg": offset, **further}

    def expected_outputs(self):
        """Yield name, values of every tenth class, and the deviation of the original's float32 run."""
        prefix = f"{self.name}/"
        for key in self.file.files:
            if key.startswith(prefix) and f"{key}_float32" in self.file.files:
                yield key.removeprefix(prefix), self.file[key], float(self.file[f"{key}_float32"])

    def image(self):
        return torch.from_numpy(recipe.recipe_image(tuple(self.file[f"{self.name}/input_shape"])))


SLOW = ("mp_hourglass",)
WITHOUT_TRAINING = ("mp_hourglass",)
"""the reference has outputs alone"""


def marked(names, slow=SLOW):
    return [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in names]


@pytest.fixture(scope="module", params=marked(WHOLE))
def original(request, golden):
    return Original(request.param, WHOLE[request.param], golden("models"))


@pytest.fixture(scope="module")
def facts(original, shared):
    """The full numbers of the original."""
    folder = shared / "golden" / ("pose/models" if original.name.startswith("mp_") else "models")
    return json.loads((folder / f"{original.name}.json").read_text()), np.load(folder / f"{original.name}.npz")


def thinned(values):
    return values[:, :: {80: 10, 34: 5, 17: 5}.get(values.shape[1], 1)]


@torch.no_grad()
def test_outputs_equal_the_original_with_the_same_weights(original):
    answers = original.answers(original.network, original.image().double())
    checked = 0
    for name, expected, _ in original.expected_outputs():
        assert np.abs(thinned(answers[name].numpy()) - expected).max() < 1e-6 * np.abs(expected).max(), name
        checked += 1
    assert checked == len(answers)


@torch.no_grad()
def test_float32_deviates_no_more_than_ten_times_what_the_original_does(original):
    answers = original.answers(copy.deepcopy(original.network).float(), original.image())
    for name, expected, deviation in original.expected_outputs():
        assert np.abs(thinned(answers[name].numpy()) - expected).max() < 10 * deviation, name


@torch.no_grad()
def test_maps_inside_equal_the_original(original, facts):
    prefix = "1x3x128x128/inter/"
    expected = {key.removeprefix(prefix): value for key, value in facts[1].items() if key.startswith(prefix)}
    seen, hooks = {}, []

    def remember(name):
        def hook(module, args, output):
            seen[name] = output[:, : expected[name].shape[1]].numpy().copy()

        return hook

    for path, module in original.network.named_modules():
        try:
            name = foreign_names([path], original.pairs)[path]
        except KeyError:  # a group of modules that the original does not have
            continue
        if name in expected:
            hooks.append(module.register_forward_hook(remember(name)))
    original.network(torch.from_numpy(recipe.recipe_image((1, 3, 128, 128))).double())
    for hook in hooks:
        hook.remove()
    assert len(seen) >= min(4, len(expected) // 2)
    for name, values in seen.items():
        assert np.abs(values - expected[name]).max() < 1e-6 * np.abs(expected[name]).max(), name


@pytest.mark.parametrize(
    "original",
    marked([name for name in WHOLE if name not in WITHOUT_TRAINING], ("hourglass",)),
    indirect=True,
)
def test_gradients_equal_the_original(original, facts):
    expected = facts[0]["train"]
    network = copy.deepcopy(original.network).train()
    x = torch.from_numpy(recipe.recipe_image(tuple(expected["input_shape"]))).double().requires_grad_()
    loss = 0.0
    for name, output in original.answers(network, x).items():
        generator = np.random.Generator(np.random.PCG64(zlib.crc32(f"loss/{name}".encode())))
        loss = loss + (output * torch.from_numpy(generator.standard_normal(tuple(output.shape)))).sum()
    loss.backward()
    assert loss.item() == pytest.approx(expected["loss"], rel=1e-6)
    assert x.grad.norm().item() == pytest.approx(expected["input_grad_norm"], rel=1e-4)
    names = foreign_names(dict(network.named_parameters()), original.pairs)
    for key, parameter in network.named_parameters():
        norm = expected["grad_norm"][names[key]]
        # the gradient of a bias in front of a norm is rounding alone
        if norm > 1e-6:
            assert parameter.grad.norm().item() == pytest.approx(norm, rel=1e-4), key


@pytest.mark.parametrize("name", [*WHOLE, *KEYS_ONLY])
def test_names_and_shapes_of_tensors_are_the_originals_but_the_unused(name, golden):
    file, model = golden("models"), (WHOLE | KEYS_ONLY)[name]
    theirs = dict(zip(file[f"{name}/keys"].tolist(), file[f"{name}/shapes"].tolist(), strict=True))
    with torch.device("meta"):
        own = network_of(model).state_dict()
    names = foreign_names(own, pairs_of(name, model))
    ours = {names[key]: " ".join(map(str, tensor.shape)) for key, tensor in own.items()}
    assert len(ours) == len(own)
    assert ours == {key: shape for key, shape in theirs.items() if not UNUSED.match(key)}


@pytest.mark.parametrize("name", KEYS_ONLY)
def test_networks_known_by_their_names_run(name):
    network = network_of(KEYS_ONLY[name]).eval()
    with torch.no_grad():
        [heads] = network(torch.randn(1, 3, 64, 96))
    assert {k: tuple(v.shape[2:]) for k, v in heads.items()} == dict.fromkeys(heads, (16, 24))
    assert len(heads) == len(KEYS_ONLY[name].head_names)
    assert all(v.isfinite().all() for v in heads.values())
