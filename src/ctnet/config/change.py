"""Copies of settings with some values replaced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel

Settings = TypeVar("Settings", bound=BaseModel)


def changed(settings: Settings, values: Mapping[str, object]) -> Settings:
    """Return a copy with the values of these dotted keys, such as `data.image_size`.

    The values are taken as they are, not validated. Raises KeyError for a key that the settings do not have.
    """
    own: dict[str, object] = {}
    inner: dict[str, dict[str, object]] = {}
    for key, value in values.items():
        name, dot, rest = key.partition(".")
        if name not in type(settings).model_fields:
            raise KeyError(key)
        if dot:
            inner.setdefault(name, {})[rest] = value
        else:
            own[name] = value
    sections = {name: changed(getattr(settings, name), part) for name, part in inner.items()}
    return settings.model_copy(update={**own, **sections})
