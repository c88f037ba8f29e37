"""What each setting means and takes, out of the schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ctnet.config.families import SETTINGS
from ctnet.config.load import nearest_setting
from ctnet.config.schema import Recipe
from ctnet.errors import ConfigError

_UNBOUNDED = 1e6  # limits from here on only keep files of strangers from asking for too much


@dataclass(frozen=True)
class Setting:
    """A setting: its dotted key, the values it takes, its default, its meaning, and the families that have it."""

    key: str
    values: str
    default: Any
    meaning: str
    families: tuple[str, ...] = ()
    """empty for settings of every family"""


def explain(key: str = "") -> list[Setting]:
    """Return the setting of a dotted key, all of a section, or all. Raises ConfigError for another word."""
    settings = _settings()
    found = [one for one in settings if not key or one.key == key or one.key.startswith(f"{key}.")]
    found = found or [one for one in settings if one.key.rpartition(".")[2] == key]
    if not found:
        sections = {one.key.rpartition(".")[0] for one in settings} - {""}
        raise ConfigError(
            f"there is no setting {key!r}", nearest=nearest_setting(key, [*(one.key for one in settings), *sections]),
            hint="ctnet config explain lists all settings, ctnet config explain SECTION those of a section",
        )  # fmt: skip
    return found


def _settings() -> list[Setting]:
    owners: dict[str, list[tuple[type, tuple[str, ...]]]] = {}
    for name, field in Recipe.model_fields.items():
        if name in ("model", "loss"):
            index = ("model", "loss").index(name)
            owners[name] = [(settings[index], (family,)) for family, settings in SETTINGS.items()]
        elif hasattr(field.annotation, "model_fields"):
            owners[name] = [(field.annotation, ())]  # type: ignore[list-item]
    merged: dict[tuple[str, str, str], Setting] = {}
    owners[""] = [(Recipe, ())]
    for section, classes in sorted(owners.items(), key=lambda item: bool(item[0])):  # name and seed first
        for owner, families in classes:
            for one in _of_class(owner, section, families):
                if section or one.key in ("name", "seed"):
                    same = (one.key, one.values, one.meaning)
                    known = merged.get(same)
                    joined = known.families + families if known else families
                    merged[same] = Setting(*same[:2], one.default, one.meaning, joined)
    everywhere = len(SETTINGS)
    return [
        Setting(s.key, s.values, s.default, s.meaning, () if len(s.families) == everywhere else s.families)
        for s in merged.values()
    ]


def _of_class(owner: Any, section: str, families: tuple[str, ...]) -> list[Setting]:
    properties = owner.model_json_schema()["properties"]
    return [
        Setting(
            f"{section}.{name}" if section else name, _values(about), about.get("default"),
            " ".join(about.get("description", "").split()), families,
        )
        for name, about in properties.items()
    ]  # fmt: skip


def _values(about: Mapping[str, Any]) -> str:
    """Return in words what the JSON schema of a setting allows."""
    if "anyOf" in about:
        return " or ".join("empty" if one.get("type") == "null" else _values(one) for one in about["anyOf"])
    if "enum" in about:
        return ", ".join(map(str, about["enum"]))
    if "const" in about:
        return str(about["const"])
    if about.get("type") == "array":
        if "prefixItems" in about:
            return f"{len(about['prefixItems'])} times {_values(about['prefixItems'][0])}"
        return f"list of {_values(about.get('items', {}))}"
    word = {"integer": "integer", "number": "number", "boolean": "true or false"}.get(about.get("type", ""), "text")
    least, most = (
        about.get("minimum", about.get("exclusiveMinimum")),
        about.get("maximum", about.get("exclusiveMaximum")),
    )
    parts = [word]
    if least is not None:
        parts.append(f"{'above' if 'exclusiveMinimum' in about else 'from'} {least:g}")
    if most is not None and most < _UNBOUNDED:
        parts.append(f"{'below' if 'exclusiveMaximum' in about else 'to'} {most:g}")
    if "multipleOf" in about:
        parts.append(f"in steps of {about['multipleOf']:g}")
    return " ".join(parts)
