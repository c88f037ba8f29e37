"""What ctnet's own files say about themselves, checked as any other input: they may come from anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictInt, ValidationError

from ctnet._version import __version__
from ctnet.config.load import recipe_from_dict
from ctnet.config.ranges import LONGEST_TEXT, MOST_CATEGORIES, MOST_KEYPOINTS, Count, ImageSize, Text
from ctnet.config.schema import Recipe
from ctnet.errors import ConfigError, WeightsError
from ctnet.limits import parse_json
from ctnet.types import Category, KeypointSchema

Updates = Annotated[StrictInt, Field(ge=0, le=10**12)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


def sound_categories(categories: tuple[Category, ...]) -> tuple[Category, ...]:
    """Return the categories. Raises ValueError, in words that follow "expected", unless files of weights take them."""
    if not 1 <= len(categories) <= MOST_CATEGORIES:
        raise ValueError(f"from 1 to {MOST_CATEGORIES:,} categories are expected, not {len(categories):,}")
    for category in categories:
        if not 0 <= category.id < 2**63 or len(category.name) > LONGEST_TEXT or "\0" in category.name:
            raise ValueError(f"an id from 0 and a name are expected, not {str(tuple(category))[:80]}")
    if len({category.id for category in categories}) < len(categories):
        raise ValueError("each id once is expected")
    return categories


def sound_keypoints(schema: KeypointSchema | None) -> KeypointSchema | None:
    """Return the key points. Raises ValueError, in words that follow "expected", unless files of weights take them."""
    if schema is None:
        return None
    count = len(schema.names)
    if not 1 <= count <= MOST_KEYPOINTS:
        raise ValueError(f"from 1 to {MOST_KEYPOINTS:,} key points are expected, not {count:,}")
    if len(set(schema.names)) < count or any(not n or len(n) > LONGEST_TEXT or "\0" in n for n in schema.names):
        raise ValueError("a name of its own for each key point is expected")
    ends = [end for pair in (*schema.flip_pairs, *schema.skeleton) for end in pair]
    swapped = [end for pair in schema.flip_pairs for end in pair]
    if any(not 0 <= end < count for end in ends) or len(set(swapped)) < len(swapped):
        raise ValueError(f"pairs of indices below {count} are expected, each index in one flip pair at most")
    if schema.sigmas is not None and (len(schema.sigmas) != count or not all(0 < s < 1e6 for s in schema.sigmas)):
        raise ValueError(f"{count} sigmas above 0 are expected")
    return schema


class NetworkMetadata(BaseModel):
    """What every file with a network carries. Further entries are left alone."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    recipe: Recipe
    categories: Annotated[tuple[Category, ...], AfterValidator(sound_categories)]
    keypoints: Annotated[KeypointSchema | None, AfterValidator(sound_keypoints)] = None


class WeightsMetadata(NetworkMetadata):
    """The metadata of `best.safetensors`; `info` is free-form."""

    info: dict[str, Any] = {}


class ExportMetadata(NetworkMetadata):
    """The metadata of an exported graph."""

    output: Literal["decoded", "raw"]
    batch: Count | None
    size: ImageSize | None
    precision: Literal["fp32", "fp16", "bf16", "int8"]
    info: dict[str, Any]
    pixels: StrictBool = False


class StateMetadata(NetworkMetadata):
    """All of `last.pt` that is neither tensors nor states of others' objects."""

    data: Text
    world_size: Count = 1
    step: Updates
    evaluation_due: StrictBool
    best: dict[str, StrictInt | Finite | None]
    ema_updates: Updates
    model: dict[str, Any]
    ema: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    rng: dict[str, Any]


Metadata = TypeVar("Metadata", bound=NetworkMetadata)


def parse_metadata(text: str | None) -> Any:
    """Return the content of JSON, None where there is none."""
    try:
        return parse_json(text or "null")
    except ValueError:
        return None


def read_metadata(kind: type[Metadata], content: Any, schema: str | None, source: object) -> Metadata:
    """Return the metadata of a file, `source` naming it. Raises WeightsError with the key that is wrong."""
    if not isinstance(content, Mapping):
        raise WeightsError("the metadata is no mapping", file=source, got=type(content).__name__)
    if schema is not None and content.get("schema") != schema:
        raise WeightsError(
            "the file was written by another version of ctnet", file=source, expected=schema,
            got=_short(content.get("schema")), written_by=_short(content.get("ctnet", "a version that is not named")),
            this=__version__, hint="a newer version of ctnet may read it",
        )  # fmt: skip
    try:
        if "recipe" not in content:
            raise KeyError("recipe")
        recipe = recipe_from_dict(content["recipe"], str(source))
        return kind.model_validate({str(key): value for key, value in content.items()} | {"recipe": recipe})
    except KeyError as error:
        key, expected, got = str(error.args[0]), "a value", "nothing"
    except ConfigError as error:
        key, expected, got = f"recipe: {error.message}", error.facts.get("expected", ""), error.facts.get("got", "")
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        expected, got = first["msg"].removeprefix("Value error, "), _short(first["input"])
    writer = content.get("ctnet")
    raise WeightsError(
        "the metadata of the file is not as this version writes it", file=source, key=_short(key),
        expected=expected or None, got=got or None,
        written_by=None if writer is None else _short(writer), this=__version__,
    )  # fmt: skip


def _short(value: object) -> str:
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
