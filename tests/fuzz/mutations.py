"""Ways to spoil a valid file: bytes, words, trees of JSON and YAML, and the parts of zips, pickles and images."""

import binascii
import copy
import io
import itertools
import json
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import yaml

from fuzz.choices import Choices

Mutation = Callable[[bytes, Choices], bytes]

INTEGERS = (0, 1, 2, -1, 127, 128, 255, 256, 32767, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**53 + 1, 2**63, 2**64)
TEXTS = (
    "", " ", "\0", "\n", "\x1b[2J", "\x1b]0;owned\x07", "../../../outside", "/etc/passwd", "C:\\x", "a" * 300, "é" * 80,
    "\ud800", "‮gnp.exe", "nan", "inf", "-1e999", "1e400", "0x10", "1:30", "true", "null", "__class__", "%s%n{0}",
    "[red]", "<b>", "~", "$(id)", "`id`", "1_000", "٣", "²", "1e5", "-0.0", "$ORIGIN", "images/../x.png", "..", ".",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, *INTEGERS, 10**400, -(2**63) - 1, 0.0, -0.0, 0.5, 1e308, -1e308, 1e-320,
    float("nan"), float("inf"), -float("inf"), [], {}, [[]], [{}], {"": None}, [None] * 5, [0] * 40, {"a": {"b": {}}},
    *TEXTS,
)  # fmt: skip


def mutate_bytes(content: bytes, choices: Choices) -> bytes:
    """Flip, set, cut, insert, double, swap."""
    data = bytearray(content)
    kind = choices.below(9)
    at = choices.below(len(data) + 1)
    part = choices.span(len(data))
    if kind == 0 and at < len(data):
        data[at] ^= 1 << choices.below(8)
    elif kind == 1 and at < len(data):
        data[at] = choices.byte()
    elif kind == 2:
        size, order = choices.pick((2, 4, 8)), choices.pick(("little", "big"))
        number = choices.pick(INTEGERS) % (1 << 8 * size)
        data[at : at + size] = number.to_bytes(size, order)
    elif kind == 3:
        del data[at:]
    elif kind == 4:
        del data[part]
    elif kind == 5:
        data[at:at] = bytes(choices.byte() for _ in range(choices.below(16)))
    elif kind == 6:
        data[at:at] = data[part] * choices.pick((1, 2, 50))
    elif kind == 7:
        data[part] = bytes(part.stop - part.start) if choices.below(2) else data[part][::-1]
    elif kind == 8:
        data[at:at] = choices.pick(TEXTS).encode("utf-8", "surrogatepass")
    return bytes(data)


def words(pattern: str, *dictionary: str) -> Mutation:
    """Return a mutation of text cut by a regular expression: words vanish, repeat, move, or are replaced."""
    cut = re.compile(f"({pattern})")
    table = (*dictionary, *TEXTS)

    def mutate(content: bytes, choices: Choices) -> bytes:
        pieces = [piece for piece in cut.split(content.decode("utf-8", "surrogateescape")) if piece]
        kind, at = choices.below(5), choices.below(len(pieces))
        if not pieces or kind == 0:
            pieces.insert(at, choices.pick(table))
        elif kind == 1:
            del pieces[at]
        elif kind == 2:
            pieces[at] = choices.pick(table)
        elif kind == 3:
            other = choices.below(len(pieces))
            pieces[at], pieces[other] = pieces[other], pieces[at]
        else:
            pieces[at] *= choices.pick((2, 3, 100, 1000))
        return "".join(pieces).encode("utf-8", "surrogatepass" if kind < 3 else "surrogateescape")

    return _whatever_the_text(mutate)


def _whatever_the_text(mutate: Mutation) -> Mutation:
    """Let text that is in two encodings at once be bytes."""

    def guarded(content: bytes, choices: Choices) -> bytes:
        try:
            return mutate(content, choices)
        except UnicodeError:
            return mutate_bytes(content, choices)

    return guarded


def mutate_tree(tree: Any, choices: Choices, *more: Any) -> Any:
    """Return a copy in which one node is replaced, removed, doubled, wrapped, or stands elsewhere as well."""
    tree = copy.deepcopy(tree)
    places = list(_places(tree))
    if not places:
        return choices.pick((*more, *VALUES))
    parent, key = choices.pick(places)
    kind = choices.below(8)
    if kind <= 3:
        parent[key] = choices.pick((*more, *VALUES))
    elif kind == 4:
        del parent[key]
    elif kind == 5:
        parent[key] = choices.pick((lambda v: [v], lambda v: {"x": v}, str, lambda v: [v, v], lambda v: {str(v): v}))(
            parent[key]
        )
    elif kind == 6:
        other, there = choices.pick(places)
        parent[key] = (
            copy.deepcopy(other[there]) if there in (other if isinstance(other, dict) else range(len(other))) else None
        )
    elif isinstance(parent, list):
        parent.insert(choices.below(len(parent) + 1), copy.deepcopy(parent[key]))
    else:
        parent[choices.pick(TEXTS)] = parent.pop(key)
    return tree


def _places(tree: Any):
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield tree, key
        yield from _places(tree[key])


def json_tree(content: bytes, choices: Choices) -> bytes:
    """Spoil the values of JSON; now and then the text, or its depth."""
    kind = choices.below(12)
    if kind == 0:
        return mutate_bytes(content, choices)
    if kind == 1:
        return _nest(content, choices, b"[", b"]")
    try:
        tree = mutate_tree(json.loads(content), choices)
        return json.dumps(tree, ensure_ascii=bool(choices.below(2))).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return mutate_bytes(content, choices)


def _nest(content: bytes, choices: Choices, opening: bytes, closing: bytes) -> bytes:
    at, depth = choices.below(len(content) + 1), choices.pick((3, 60, 1000, 20_000))
    return content[:at] + opening * depth + choices.pick((b"", b"1")) + closing * depth + content[at:]


_YAML_WORDS = (
    "!!python/object/apply:os.system [id]", "!!python/name:os.system", "!!binary |\n  AA==", "!!set {a, b}", "!!int x",
    "!!float x", "!!timestamp x", "!!omap [a: 1]", "!!pairs [a: 1]", "!!null x", "!!bool x", "!!str", "&a ", "*a",
    "<<: *a", "<<: 1", "<<: [1]", "<<: {a: 1}", "? ", ": ", "- ", "[", "]", "{", "}", "|", ">-\n", "---", "...",
    "%YAML 1.2\n", "2001-01-01", "2001-13-41", "2001-12-14t21:59:43.10-99:99", "1:30", "190:20:30", "1_0", "0o7", "08",
    "0b1", "0b", "0x", "1:", ".nan", ".inf", "+.INF", "=", "~", "!", "!!", "\t", "@", "`", '"\\ud800"', '"\\x00"',
    "{{a: 1}: 2}", "? [a]\n: 1", "extends: x", "1.", "._", "1__", "-_", "+", "1e1", "0x_", "1:2:3.4", "_:1", "1:_",
)  # fmt: skip
yaml_words = words(r"\s+|[:,\[\]{}]", *_YAML_WORDS)


def yaml_tree(content: bytes, choices: Choices) -> bytes:
    """Spoil the values of YAML, or its words, or its depth."""
    kind = choices.below(8)
    if kind <= 2:
        return yaml_words(content, choices)
    if kind == 3:
        return mutate_bytes(content, choices)
    if kind == 4 and choices.below(4) == 0:
        return _nest(content, choices, *choices.pick(((b"[", b"]"), (b"{a: ", b"}"), (b"- ", b""))))
    try:
        tree = mutate_tree(yaml.safe_load(content), choices)
        return yaml.safe_dump(tree, allow_unicode=bool(choices.below(2)), sort_keys=False).encode("utf-8", "replace")
    except Exception:  # content spoiled before may be anything
        return yaml_words(content, choices)


xml_words = words(
    r"<[^>]*>|\s+", "<object>", "</object>", "<name>", "<bndbox>", "<size>", "<width>0</width>", "<!-- ", "<![CDATA[",
    "<!DOCTYPE a>", "<!ENTITY a 'b'>", "&amp;", "&#0;", "&#27;", "&#x10FFFF;", "&a;", "<?xml version='1.0' "
    "encoding='utf-7'?>", "<?xml version='1.0' encoding='x'?>", "<filename>../x</filename>", "<filename>\0</filename>",
    "1e39", "-1", "1e9", "<a xmlns='b'>", "<b:c/>", "<object/>", "0", "4294967296",
)  # fmt: skip


def xml(content: bytes, choices: Choices) -> bytes:
    """Spoil elements and their text, or the depth."""
    kind = choices.below(8)
    if kind == 0:
        return mutate_bytes(content, choices)
    return _nest(content, choices, b"<a>", b"</a>") if kind == 1 else xml_words(content, choices)


lines = words(
    r"\s+", "0", "1", "-1", "0.5", "1.02", "nan", "inf", "1e400", "0.5 0.5 0.5 0.5", "99", "0.0", "\v", "\f", "\u2028",
    "\x85", "\x1c", "\N{BYTE ORDER MARK}", "+1", "1e-400", "1_0",
)  # fmt: skip
csv_words = words(r"[,\n]", ",", "\n", '"', '""', "\r", "epoch", "step", "-1", "1.5", "x,y", "\0", '"\n')


def pickled(content: bytes, choices: Choices) -> bytes:
    """Delete, double, move or replace operations of a pickle, or spoil its bytes."""
    kind = choices.below(6)
    if kind == 0:
        return mutate_bytes(content, choices)
    cuts = _operations(content)
    parts = [content[a:b] for a, b in itertools.pairwise(cuts)]
    at, other = choices.below(len(parts)), choices.below(len(parts))
    if kind == 1:
        del parts[at]
    elif kind == 2:
        parts.insert(other, parts[at])
    elif kind == 3:
        parts[at], parts[other] = parts[other], parts[at]
    elif kind == 4:
        parts.insert(at, choices.pick(_OPERATIONS))
    else:
        parts[at] = choices.pick(_OPERATIONS)
    return b"".join(parts)


_OPERATIONS = (
    *(bytes([code]) for code in b"N0123.()}{]absutedl\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94RQ\x81\x97\x98"),
    b"cos\nsystem\n", b"cbuiltins\neval\n", b"cbuiltins\nbytearray\n", b"c__builtin__\ngetattr\n", b"K\x00", b"K\xff",
    b"J\xff\xff\xff\x7f", b"J\x00\x00\x00\x80", b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"M\xff\xff", b"X\x00\x00\x00\x00",
    b"U\x01a", b"X\x02\x00\x00\x00os", b"h\x00", b"h\xff", b"q\x00",
    b"j\xff\xff\xff\xff", b"r\xff\xff\xff\x7f", b"\x80\x02",
    b"\x80\x04", b"\x80\xff", b"\x95\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x8e\x01\x00\x00\x00\x00\x00\x00\x00a",
    b"B\xff\xff\xff\xff", b"C\x01a", b"\x8b\xff\xff\xff\x7f", b"I99999999999\n", b"F1e400\n",
    b"L5L\n", b"S'a'\n", b"V\\ud800\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n", b"P1\n", b"g0\n",
    b"inumpy\nndarray\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy\ndtype\n",
    b"\x82\x01", b"G\x7f\xf8" + b"\0" * 6,
)  # fmt: skip


def _operations(content: bytes) -> list[int]:
    places = []
    stream = io.BytesIO(content)
    while stream.tell() < len(content) and len(places) < 500:  # some files hold several pickles
        try:
            base = stream.tell()
            places += [position for _, _, position in pickletools.genops(stream)]
        except Exception:
            break
        if stream.tell() == base:
            break
    return [*sorted({*places, 0}), len(content)]


def zipped(inside: Mutation, suffix: str) -> Mutation:
    """Spoil the entries of this suffix, a zip's names and order, or its bytes; checksums are right again after."""

    def mutate(content: bytes, choices: Choices) -> bytes:
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
        except Exception:
            return mutate_bytes(content, choices)
        kind = choices.below(10)
        if not entries or kind == 0:
            return mutate_bytes(content, choices)
        chosen = [i for i, (name, _) in enumerate(entries) if name.endswith(suffix)]
        at = choices.pick(chosen) if chosen and kind > 3 else choices.below(len(entries))
        name, body = entries[at]
        if kind == 1:
            del entries[at]
        elif kind == 2:
            entries[at] = (
                choices.pick(("", "a/", "../x", "a/data.pkl", "/data.pkl", "a/version", name.upper(), "\0")),
                body,
            )
        elif kind == 3:
            entries[at] = (name, mutate_bytes(body, choices))
        else:
            entries[at] = (name, inside(body, choices))
        method = zipfile.ZIP_DEFLATED if choices.below(20) == 19 else zipfile.ZIP_STORED
        return write_zip(entries, method)

    return mutate


def write_zip(entries: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name that comes twice is one of the mutations
        for name, body in entries:
            archive.writestr(zipfile.ZipInfo(name or "x", (1980, 1, 1, 0, 0, 0)), body, method)
    return stream.getvalue()


def safetensors(content: bytes, choices: Choices) -> bytes:
    """Spoil the header, and the JSON that ctnet writes into it."""
    kind = choices.below(6)
    try:
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        if kind == 0:
            return mutate_bytes(content, choices)
        if kind <= 3 and "ctnet" in header.get("__metadata__", {}):
            header["__metadata__"]["ctnet"] = json_tree(header["__metadata__"]["ctnet"].encode(), choices).decode()
        else:
            header = mutate_tree(header, choices, "F32", "BF16", "F64", "I64", "BOOL", "F8_E4M3", [0, 4], [4, 0])
        text = json.dumps(header).encode()
    except (ValueError, struct.error, AttributeError, TypeError, RecursionError):
        return mutate_bytes(content, choices)
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def jpeg(content: bytes, choices: Choices) -> bytes:
    """Spoil, move, drop or double segments, or their lengths, or what EXIF says."""
    kind = choices.below(7)
    segments, at = [content[:2]], 2
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != 0xDA:
        length = 2 + max(2, int.from_bytes(content[at + 2 : at + 4], "big"))
        segments.append(content[at : at + length])
        at += length
    rest = content[at:]
    i, j = choices.below(len(segments)), choices.below(len(segments))
    if kind == 0:
        return mutate_bytes(content, choices)
    if kind == 1:
        del segments[i]
    elif kind == 2:
        segments.insert(j, segments[i])
    elif kind == 3:
        segments[i], segments[j] = segments[j], segments[i]
    elif kind == 4:
        segments[i] = segments[i][:2] + choices.pick(INTEGERS[:10]).__mod__(65536).to_bytes(2, "big") + segments[i][4:]
    elif kind == 5:
        segments[i] = (
            segments[i][:1]
            + bytes([choices.pick((0xC0, 0xC1, 0xC4, 0xD8, 0xD9, 0xDA, 0xE1, 0xFF, 0, 0x01))])
            + segments[i][2:]
        )
    else:
        segments[i] = segments[i][:4] + mutate_bytes(segments[i][4:], choices)
    return b"".join(segments) + rest


def png(content: bytes, choices: Choices) -> bytes:
    """Spoil, move, drop or double chunks; checksums are right again after."""
    kind = choices.below(6)
    chunks, at = [], 8
    while at + 12 <= len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    if kind == 0 or not chunks:
        return mutate_bytes(content, choices)
    i, j = choices.below(len(chunks)), choices.below(len(chunks))
    name, body = chunks[i]
    if kind == 1:
        del chunks[i]
    elif kind == 2:
        chunks.insert(j, chunks[i])
    elif kind == 3:
        chunks[i] = (
            choices.pick((b"eXIf", b"IDAT", b"IEND", b"IHDR", b"acTL", b"\0\0\0\0", b"PLTE", b"tRNS", b"iCCP")),
            body,
        )
    elif kind == 4 and len(body) >= 4:
        place = 4 * choices.below(len(body) // 4)
        number = choices.pick((0, 1, 2, 3, 255, 40, 65535, 2**31 - 1, 2**31, 2**32 - 1))
        chunks[i] = (name, body[:place] + number.to_bytes(4, "big") + body[place + 4 :])
    else:
        chunks[i] = (name, mutate_bytes(body, choices))
    parts = (struct.pack(">I", len(b)) + n + b + struct.pack(">I", binascii.crc32(n + b)) for n, b in chunks)
    return content[:8] + b"".join(parts)
