"""Recipes: files, overrides, provenance, mistakes."""

from pathlib import Path
from typing import Literal

import pytest

from ctnet.config import CenterNetModel, Loss, Model, Recipe, load_recipe, recipe_from_dict, recipe_names
from ctnet.config.families import SETTINGS, FamilySettings
from ctnet.config.load import to_yaml
from ctnet.errors import ConfigError


def test_later_sources_win_and_are_remembered(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("extends: centernet_resdcn18\nschedule: {epochs: 7}\noptimizer:\n  lr: 3e-4\n  momentum: 0.8\n")
    loaded = load_recipe(
        str(file),
        ["optimizer.lr=5e-4", "schedule.epochs=9"],
        {"--epochs schedule.epochs": 11, "--seed seed": None},
    )
    assert loaded.recipe.schedule.epochs == 11
    assert loaded.recipe.optimizer.lr == pytest.approx(5e-4)
    assert loaded.recipe.name == "mine"
    assert loaded.sources["schedule.epochs"] == "--epochs"
    assert loaded.sources["optimizer.lr"] == "command line"
    assert loaded.sources["optimizer.momentum"] == str(file)
    assert loaded.sources["augment.crop"] == "centernet_resdcn18.yaml"
    assert loaded.sources["seed"] == "default"


@pytest.mark.parametrize(
    ("override", "message", "nearest"),
    [
        ("optim.lr=3", "unknown setting 'optim.lr'", "optimizer.lr"),
        ("optimizer.lrr=3", "unknown setting", "optimizer.lr"),
        ("train.batchsize=3", "unknown setting", "train.batch_size"),
        ("optimizer=3", "is a section", None),
        ("schedule.epochs=0", "bad value for schedule.epochs", None),
        ("data.image_size=100", "bad value for data.image_size", None),
        ("data.std=[1,0,1]", "disagree", None),
        ("train.amp=fast", "bad value for train.amp", None),
        ("epochs", "dotted.key=value", None),
        ("seed=[", "cannot be parsed", None),
    ],
)
def test_mistakes_are_named_with_the_nearest_key(override, message, nearest):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")) as caught:
        load_recipe(overrides=[override])
    assert caught.value.exit_code == 2
    assert caught.value.facts.get("nearest") == nearest


def test_unknown_recipes_and_broken_files(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_recipe("centernet_resdn18")
    assert caught.value.facts["nearest"] == "centernet_resdcn18"
    for name, text in (("list.yaml", "- 1\n"), ("broken.yaml", "a: [1\n"), ("latin.yaml", b"a: \xff\n")):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(ConfigError) as caught:
            load_recipe(str(path))
        assert name in str(caught.value)
    with pytest.raises(ConfigError, match="cannot read"):
        load_recipe(str(tmp_path / "absent.yaml"))


def test_recipes_extend_one_another_but_not_in_a_circle(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: demo\nschedule: {epochs: 5}\noptimizer: {lr: 0.5}\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\noptimizer: {lr: 0.25}\n")
    loaded = load_recipe(str(tmp_path / "b.yaml"))
    assert (loaded.recipe.name, loaded.recipe.schedule.epochs, loaded.recipe.optimizer.lr) == ("b", 5, 0.25)
    assert loaded.sources["schedule.epochs"] == str(tmp_path / "a.yaml")
    assert load_recipe("demo").recipe.model == loaded.recipe.model
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    with pytest.raises(ConfigError, match="circle"):
        load_recipe(str(tmp_path / "b.yaml"))


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_is_valid_and_says_how_it_is_used(name):
    assert load_recipe(name).recipe.name == name
    text = (Path(__file__).parents[2] / "configs" / f"{name}.yaml").read_text()
    header = [line for line in text.splitlines() if line.startswith("#")]
    assert any("ctnet train" in line for line in header)


def test_yaml_and_json_round_trips(tmp_path):
    recipe = load_recipe(overrides=["data.image_size=[96,160]", "evaluation.scales=[0.5,1]"]).recipe
    file = tmp_path / "back.yaml"
    file.write_text(to_yaml(recipe))
    assert load_recipe(str(file)).recipe == recipe
    assert recipe_from_dict(recipe.model_dump(mode="json"), "x") == recipe


def test_recipes_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Recipe().seed = 3


def test_off_is_a_word_and_false_a_truth_value(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("train: {amp: off, channels_last: false}\n")
    recipe = load_recipe(str(file), ["data.val_split=no", "evaluation.flip=true"]).recipe
    assert (recipe.train.amp, recipe.train.channels_last) == ("fp32", False)
    assert (recipe.data.val_split, recipe.evaluation.flip) == ("no", True)
    assert load_recipe("centernet_resdcn18", ["train.amp=off"]).recipe.train.amp == "fp32"


@pytest.mark.parametrize("word", ["12:30", "190:20:30.15", "2001-01-01", "off", "1e5"])
def test_a_word_that_only_old_yaml_takes_for_something_else_is_text(tmp_path, word):
    (tmp_path / "a.yaml").write_text(f"name: {word}\n")
    assert load_recipe(str(tmp_path / "a.yaml")).recipe.name == word


@pytest.mark.parametrize(
    "text",
    [
        "name: !!timestamp x", "name: !!int ''", "name: !!float ''", "name: !!bool x", "name: &a [*a]", "a: &a {b: *a}",
        "a: &a [1]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}' if i else '*a'] * 9)}]\n" for i in range(9)),
        "name: " + "[" * 20_000, "name: " + "[" * 400 + "]" * 400, "optimizer: {lr: " + "9" * 5000 + "}",
    ],
)  # fmt: skip
def test_yaml_that_means_nothing_or_too_much_is_refused(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_recipe(str(tmp_path / "a.yaml"))
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize("name", ["x" * 5000, "\0", "a\0.yaml", "x" * 5000 + ".yaml"])
def test_a_name_that_no_file_can_have_is_no_recipe(tmp_path, name):
    with pytest.raises(ConfigError):
        load_recipe(name)
    (tmp_path / "a.yaml").write_text(f'extends: "{name}"\n'.replace("\0", "\\0"))
    with pytest.raises(ConfigError):
        load_recipe(str(tmp_path / "a.yaml"))


@pytest.mark.parametrize(
    ("overrides", "message", "nearest"),
    [
        (["model.family=centrenet"], "no family of detectors is named 'centrenet'", "centernet"),
        (["model.family=[1]"], "no family of detectors", None),
        (["model.num_proposals=3"], "detectors of the family centernet have no setting 'model.num_proposals'", None),
        (["loss.sizes=3"], "detectors of the family centernet have no setting 'loss.sizes'", "loss.size"),
        (["model.family=proposals", "model.head_channel=3"], "unknown setting 'model.head_channel'", None),
        (["model.family=proposals", "model.head_channels=3"], "the family proposals have no setting", None),
    ],
)
def test_settings_belong_to_a_family(overrides, message, nearest, monkeypatch):
    class Proposals(Model):
        family: Literal["proposals"] = "proposals"
        num_proposals: int = 100

    class Sizes(Loss):
        sizes: float = 1.0

    monkeypatch.setitem(SETTINGS, "proposals", FamilySettings(Proposals, Sizes))
    with pytest.raises(ConfigError) as caught:
        load_recipe("demo", overrides)
    assert message in str(caught.value)
    assert nearest is None or caught.value.facts["nearest"] == nearest
    other = recipe_from_dict({"model": {"family": "proposals", "num_proposals": 7}, "loss": {"sizes": 2}}, "x")
    assert (other.model.num_proposals, other.loss.sizes) == (7, 2.0)
    assert recipe_from_dict(other.model_dump(mode="json"), "x") == other


def test_a_recipe_without_a_family_is_a_centernet():
    recipe = recipe_from_dict({"model": {"backbone": "resnet34"}}, "x")
    assert recipe.model == CenterNetModel(backbone="resnet34")
    assert recipe.model_dump()["model"]["family"] == "centernet"


@pytest.mark.parametrize(
    ("heads", "reason"),
    [
        ("[heatmap,size,log_size]", "2 heads for one size: size, log_size"),
        ("[size,offset]", "no heatmap"),
        ("[heatmap,offset]", "no size"),
        ("[heatmap,size,offset,offset]", "2 heads for one offset"),
        ("[heatmap,sise]", "no head is named 'sise'"),
    ],
)
def test_heads_that_do_not_fit_together_are_refused(heads, reason, ctnet, small_set):
    for command in (("train", "--data", small_set), ("config", "validate")):
        code, _, err = ctnet(*command, f"model.heads={heads}")
        assert code == 2
        assert reason in err
    assert "nearest" in err or "sise" not in heads


def test_the_batch_of_all_processes_and_that_of_each_replace_each_other(tmp_path):
    published = "centernet_resdcn18_mindspore"
    assert [load_recipe(published).recipe.train.images_per_process(n) for n in (1, 8)] == [128, 16]
    ours = load_recipe(published, ["train.batch_size=4"]).recipe.train
    assert (ours.global_batch, ours.images_per_process(8)) == (None, 4)
    accumulated = load_recipe("demo", ["train.global_batch=48", "train.accumulate=3"]).recipe
    assert (accumulated.train.batch_size, accumulated.train.images_per_process(2)) == (None, 8)
    assert recipe_from_dict(accumulated.model_dump(mode="json"), "a run") == accumulated
    file = tmp_path / "own.yaml"
    file.write_text("extends: centernet_resdcn18_coco\ntrain:\n  batch_size: 2\n")
    assert load_recipe(str(file), flags={"--batch-size train.batch_size": 3}).recipe.train.batch_size == 3


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["train.batch_size=4", "train.global_batch=8"], "not both"),
        (["train.batch_size=null"], "must be a number"),
        (["train.global_batch=0"], "greater than or equal to 1"),
    ],
)
def test_batches_that_are_none_are_refused(overrides, words):
    with pytest.raises(ConfigError, match=words):
        load_recipe("demo", overrides)


def test_processes_that_cannot_share_the_batch_evenly_are_told_which_can():
    train = load_recipe("centernet_resdcn18_coco").recipe.train
    with pytest.raises(ConfigError, match="114 images cannot be shared") as caught:
        train.images_per_process(8)
    assert caught.value.facts["processes"] == "1, 2, 3, 6, 19, 38, 57, 114 can"
