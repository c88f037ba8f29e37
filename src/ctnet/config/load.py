"""YAML files, `dotted.key=value` overrides and flags become one frozen recipe that knows where each value is from."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ctnet.config.families import DEFAULT, SETTINGS, Loss, Model
from ctnet.config.schema import EITHER_OR, RENAMED, Recipe
from ctnet.errors import ConfigError, nearest
from ctnet.files import exists, is_file, read_file
from ctnet.limits import YAML_BYTES, YAML_DEPTH, YAML_VALUES

DEFAULT_RECIPE = "centernet_res18_lateral"
"""the recipe of every command that is given none; training without data takes `DEMO_RECIPE`"""
DEMO_RECIPE = "demo"
FINE_TUNING_RECIPE = "finetune"
_LONGEST_CHAIN = 16  # recipes that extend one another
FINE_TUNING_RECIPES = {"centernet2": "finetune_centernet2"}
"""those of families that the other one does not suit"""


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe and, per dotted key, the source of its value: `default`, a file, `command line` or a flag."""

    recipe: Recipe
    sources: Mapping[str, str]


def recipe_names() -> list[str]:
    """Return the names of the recipes that ship with ctnet."""
    return sorted(f.name.removesuffix(".yaml") for f in _shipped().iterdir() if f.name.endswith(".yaml"))


def recipe_titles() -> dict[str, str]:
    """Return the recipes that ship with ctnet, each with the first sentence about it."""
    titles = {}
    for name in recipe_names():
        text = (_shipped() / f"{name}.yaml").read_text(encoding="utf-8")
        comment = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
        titles[name] = " ".join(line.lstrip("# ") for line in comment).partition(". ")[0].partition(" Data  ")[0]
    return titles


def load_recipe(
    name_or_path: str = DEFAULT_RECIPE,
    overrides: Iterable[str] = (),
    flags: Mapping[str, Any] | None = None,
    *,
    brought: tuple[str, Mapping[str, Any]] | None = None,
) -> LoadedRecipe:
    """Return the recipe of a name or YAML file with overrides applied: `brought`, then `key=value`, then flags.

    `brought` is a source and the values that come from there.

    `flags` maps `"--epochs schedule.epochs"`-style names to values: the option as typed, a space, the dotted key;
    None means not given. Raises ConfigError for unknown names and keys (with the nearest) and for bad values.
    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    given: set[str] = set()  # by the file, or by the command line, that is being taken

    def take(key: str, value: Any, source: str) -> None:
        for leaf, leaf_value in _leaves(key, value, source):
            values[leaf], sources[leaf] = leaf_value, source
            given.add(leaf)
            other = EITHER_OR.get(leaf)
            if other in values and other not in given and leaf_value is not None:
                del values[other], sources[other]

    for source, content in [*_read_chain(name_or_path), *([brought] if brought else [])]:
        given.clear()
        for key, value in content.items():
            take(str(key), value, source)
    given.clear()
    for override in overrides:
        key, value = _parse_override(override)
        take(key, value, "command line")
    for flag, value in (flags or {}).items():
        if value is not None:
            option, key = flag.split()
            take(key, value, option)
    recipe = _validate(values, sources)
    return LoadedRecipe(recipe, {key: sources.get(key, "default") for key, _ in flatten(recipe)})


def recipe_from_dict(content: Mapping[str, Any], source: str) -> Recipe:
    """Return the recipe stored in a checkpoint or run folder; `source` names it in errors. Raises ConfigError."""
    if not isinstance(content, Mapping):
        raise ConfigError("a recipe is a mapping of settings", source=source, got=type(content).__name__)
    values = {leaf: v for key, value in content.items() for leaf, v in _leaves(str(key), value, source)}
    return _validate(values, dict.fromkeys(values, source))


def flatten(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every (dotted key, value) of a recipe, in the order of the schema."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def to_yaml(recipe: Recipe) -> str:
    """Return the whole recipe as YAML that `load_recipe` reads back to an equal one."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, width=110)


class _Loader(yaml.SafeLoader):
    """YAML in which, as in YAML 1.2, only true and false are truth values (`amp: off` is a word), and 1:30 no number.

    Depth and number of values are limited; an alias counts as all that it stands for, though it takes no memory, for
    whoever goes over the values meets them as often.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth, self._values = 0, 0
        self._sizes: dict[yaml.Node, int] = {}

    def construct_scalar(self, node: Any) -> Any:
        """Return the value of a scalar, many of which become paths."""
        value = super().construct_scalar(node)
        if isinstance(value, str) and "\0" in value:
            raise yaml.constructor.ConstructorError(None, None, "a NUL character", node.start_mark)
        return value

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Return the next value and all in it."""
        before = self._values
        self._depth += 1
        YAML_DEPTH.check(self._depth)
        node = super().compose_node(parent, index)
        self._depth -= 1
        self._values += self._sizes.get(node, 1) if node else 1
        YAML_VALUES.check(self._values)
        if node is not None:
            self._sizes.setdefault(node, self._values - before)
        return node


_NO_COLON = "(?![^:]*:)"  # 1:30 is ninety in YAML 1.1
_Loader.yaml_implicit_resolvers = {
    letter: [
        (tag, re.compile(_NO_COLON + pattern.pattern, re.VERBOSE) if tag.endswith((":int", ":float")) else pattern)
        for tag, pattern in rules
        if not tag.endswith(":timestamp") and (not tag.endswith(":bool") or letter in "tTfF")
    ]
    for letter, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# beside YAMLError, what its constructors raise for a tag that does not suit its value
_NOT_YAML = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)


def _parse(text: str, as_written: str | None = None) -> Any:
    """Return the value of a YAML text; the words below the top-level key `as_written` stay text, whatever they mean."""
    YAML_BYTES.check(len(text))
    loader = _Loader(text)
    node = loader.get_single_node()
    if as_written and isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == as_written:
                _keep_words(value)
    return None if node is None else loader.construct_document(node)


def _keep_words(node: yaml.Node) -> None:
    """Make texts of the items of a list, or of the values of a mapping."""
    items = node.value if isinstance(node, yaml.CollectionNode) else []
    for item in items:
        word = item[1] if isinstance(item, tuple) else item
        if isinstance(word, yaml.ScalarNode) and word.value:
            word.tag = "tag:yaml.org,2002:str"


def read_yaml(path: Path, as_written: str | None = None) -> dict[str, Any]:
    """Return a YAML file's mapping. Raises ConfigError when it is missing, broken or not a mapping.

    What is below the key `as_written` stays as it is spelled: `yes`, `null` and `0x10` are words there.
    """
    try:
        content = _parse(read_file(path, YAML_BYTES).decode(), as_written)
    except OSError as error:
        raise ConfigError("cannot read the file", file=path, got=error.strerror) from None
    except _NOT_YAML as error:
        text = " ".join(str(error).split())[:500]
        quotes = "in double quotes a backslash is an escape: use single quotes, or /" if "escape" in text else None
        raise ConfigError("not a YAML file", file=path, got=text, hint=quotes) from None
    if not isinstance(content, dict):
        raise ConfigError("a mapping of keys to values is expected", file=path, got=type(content).__name__)
    return content


def _shipped() -> Any:
    """Return the folder of shipped recipes: inside the installed package, or `configs/` of a source checkout."""
    package = resources.files("ctnet")
    installed = package / "recipes"
    return installed if installed.is_dir() else Path(str(package)).parents[1] / "configs"


def _read_chain(name_or_path: str) -> list[tuple[str, dict[str, Any]]]:
    """Return (source, content) from the file that extends nothing to the named one. Raises ConfigError for a circle."""
    chain: list[tuple[str, dict[str, Any]]] = []
    base: Any = name_or_path
    folder = Path()
    while base is not None:
        source, content = _read_one(str(base), folder)
        if source in [known for known, _ in chain] or len(chain) == _LONGEST_CHAIN:
            passed = " -> ".join([*(known for known, _ in chain), source][-5:])
            raise ConfigError("recipes extend each other in a circle, or too many others", chain=passed)
        base, folder = content.pop("extends", None), Path(source).parent
        chain.append((source, content))
    chain[0][1].setdefault("name", Path(chain[0][0]).stem)
    return chain[::-1]


def _read_one(name_or_path: str, folder: Path) -> tuple[str, dict[str, Any]]:
    path = folder / name_or_path
    if name_or_path.endswith((".yaml", ".yml")) or is_file(path):
        return str(path), read_yaml(path)
    shipped = _shipped() / f"{name_or_path}.yaml"
    if not is_file(shipped):
        raise ConfigError(
            f"no recipe named {name_or_path!r}",
            nearest=nearest(name_or_path, recipe_names()),
            hint=_meant(name_or_path),
        )
    return f"{name_or_path}.yaml", dict(_parse(shipped.read_text(encoding="utf-8")) or {})


def _meant(word: str) -> str:
    """Return a hint for a word that stands where a recipe's name belongs."""
    if word in dict(flatten(Recipe())):
        return f"settings are written as {word}=VALUE"
    if Path(word).suffix.lower() in (".pt", ".pth", ".safetensors", ".onnx", ".pkl", ".ckpt"):
        return f"--weights {word} starts from these weights"
    if exists(Path(word)):
        return f"--data {word} takes a data set"
    return "ctnet config list shows the shipped recipes; a file of your own ends in .yaml"


def _parse_override(text: str) -> tuple[str, Any]:
    key, equals, raw = text.partition("=")
    if not equals or not key:
        raise ConfigError("an override looks like dotted.key=value", got=text)
    try:
        return key, _parse(raw)
    except _NOT_YAML as error:
        raise ConfigError("the value cannot be parsed", got=text, detail=" ".join(str(error).split())) from None


def _leaves(key: str, value: Any, source: str) -> Iterator[tuple[str, Any]]:
    """Yield the leaf settings below `key`, refusing keys that the schema does not have."""
    node: Any = Recipe
    key = RENAMED.get(key, key)
    parts = key.split(".")
    for depth, part in enumerate(parts):
        fields = _fields(node)
        if part not in fields:
            scope = ".".join(parts[:depth])
            names = [f"{scope}.{name}" if scope else name for name in fields]
            raise ConfigError(
                f"unknown setting {key!r}",
                source=source,
                nearest=nearest_setting(key, [k for k, _ in flatten(Recipe())] + names),
                hint="ctnet config show lists every setting",
            )
        node = fields[part].annotation
    if not (isinstance(node, type) and issubclass(node, BaseModel)):
        yield key, value
        return
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key!r} is a section, not a value", source=source, got=value)
    for name, inner in value.items():
        yield from _leaves(f"{key}.{name}", inner, source)


def nearest_setting(key: str, names: list[str]) -> str | None:
    """Return the one of the dotted names that was probably meant, by its whole or by its last part."""
    by_last = {name.rsplit(".", 1)[-1]: name for name in names}
    return nearest(key, names, 0.5) or by_last.get(nearest(key.rsplit(".", 1)[-1], by_last) or "")


def _fields(node: Any) -> dict[str, Any]:
    """Return the fields of a section; those of `model` and `loss` are those of all families together."""
    if not (isinstance(node, type) and issubclass(node, BaseModel)):
        return {}
    classes: list[type[BaseModel]] = [node]
    for index, base in enumerate((Model, Loss)):
        if node is base:
            classes += [settings[index] for settings in SETTINGS.values()]
    return {name: field for one in classes for name, field in one.model_fields.items()}


def _allowed(error: Mapping[str, Any]) -> str:
    """Return what one of pydantic's errors allows, in words that suit a message."""
    if error["type"] == "multiple_of":
        step, value = error["ctx"]["multiple_of"], error["input"]
        below, above = int(value // step * step), int(-(-value // step) * step)
        return f"{below} or {above} (a multiple of {step})" if below else f"{above} (a multiple of {step})"
    text = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    return text.partition(", unable to parse")[0]


def _validate(values: Mapping[str, Any], sources: Mapping[str, str]) -> Recipe:
    tree: dict[str, Any] = {}
    for key, value in values.items():
        section, _, leaf = key.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[leaf] = value
    family = tree.get("model", {}).get("family", DEFAULT)
    if family not in tuple(SETTINGS):
        raise ConfigError(
            f"no family of detectors is named {family!r}", source=sources.get("model.family"),
            nearest=nearest(str(family), SETTINGS), known=", ".join(SETTINGS),
        )  # fmt: skip
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            section, _, _ = key.partition(".")
            own = SETTINGS[family].model if section == "model" else SETTINGS[family].loss
            raise ConfigError(
                f"detectors of the family {family} have no setting {key!r}", source=sources.get(key),
                nearest=nearest_setting(key, [f"{section}.{name}" for name in own.model_fields]),
            ) from None  # fmt: skip
        known = next((k for k in values if key == k or key.startswith(f"{k}.")), None)
        raise ConfigError(
            f"bad value for {known or key}" if key else "settings disagree",
            source=sources.get(known) if known else None,
            expected=_allowed(first),
            got=repr(values[known])[:200] if known else None,
        ) from None
