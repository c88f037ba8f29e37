"""Pickles that ask for code, for memory, or for what honest ones never hold."""

import io
import pickle
import struct
import zipfile

COMMAND = "touch $CTNET_HOSTILE"
_PYTHON = "__import__('os').system('touch $CTNET_HOSTILE')"


def _call(module: str, name: str, *arguments: str) -> bytes:
    """Return protocol 0 that calls a function with text."""
    texts = "".join(f"V{argument}\n" for argument in arguments)
    return f"c{module}\n{name}\n({texts}tR.".encode()


def _stack_call(module: str, name: str, *arguments: str) -> bytes:
    """Return protocol 4 that does the same with STACK_GLOBAL."""

    def text(value: str) -> bytes:
        return b"\x8c" + bytes([len(value)]) + value.encode()

    body = text(module) + text(name) + b"\x93(" + b"".join(map(text, arguments)) + b"tR."
    return b"\x80\x04\x95" + struct.pack("<Q", len(body)) + body


def _instance(module: str, name: str, *arguments: str) -> bytes:
    texts = "".join(f"V{argument}\n" for argument in arguments)
    return f"({texts}i{module}\n{name}\n.".encode()


def _built(attribute: str) -> bytes:
    """Return a pickle that sets an attribute of a class that torch lets through."""
    return f"ccollections\nOrderedDict\n}}V{attribute}\ncos\nsystem\nsb.".encode()


_CALLS = {
    "os.system": ("os", "system", COMMAND),
    "posix.system": ("posix", "system", COMMAND),
    "eval": ("builtins", "eval", _PYTHON),
    "exec": ("builtins", "exec", _PYTHON),
    "Python 2 eval": ("__builtin__", "eval", _PYTHON),
    "import": ("builtins", "__import__", "antigravity"),
    "getoutput": ("subprocess", "getoutput", COMMAND),
    "code": ("code", "interact", "x"),
    "open": ("builtins", "open", "../../../../../marker", "w"),
    "dotted": ("os", "path.os.system", COMMAND),
    "runpy": ("runpy", "run_path", "/etc/passwd"),
    "timeit": ("timeit", "timeit", _PYTHON),
    "pdb": ("pdb", "run", _PYTHON),
    "cProfile": ("cProfile", "run", _PYTHON),
    "torch.load": ("torch", "load", "x"),
    "torch.hub": ("torch.hub", "load", "x/y", "z"),
    "torch collect": ("torch.utils.collect_env", "run", COMMAND),
    "jit parse": ("torch.jit.annotations", "get_signature", "x"),
    "symbolic": ("torch.fx.experimental.symbolic_shapes", "ShapeEnv", "x"),
    "numpy load": ("numpy", "load", "x"),
    "numpy exec": ("numpy.testing._private.utils", "runstring", _PYTHON, ""),
    "yaml": ("yaml", "unsafe_load", f"!!python/object/apply:os.system ['{COMMAND}']"),
    "pickle": ("pickle", "loads", "x"),
    "ctnet": ("ctnet.cli.app", "main"),
    "shutil": ("shutil", "rmtree", "/nowhere"),
    "no module": ("no_such_module", "name", "x"),
    "empty": ("", "", ""),
}


def hostile_pickles() -> dict[str, bytes]:
    """Return pickles by what they try."""
    found = {f"{name}, protocol 0": _call(*call) for name, call in _CALLS.items()}
    found |= {f"{name}, protocol 4": _stack_call(*call) for name, call in _CALLS.items()}
    found |= {f"{name}, instance": _instance(*call) for name, call in list(_CALLS.items())[:6]}
    found |= {
        "setstate": _built("__setstate__"),
        "call": _built("__call__"),
        "class": _built("__class__"),
        "reduce": b"ccollections\nOrderedDict\n(cos\nsystem\n(V" + COMMAND.encode() + b"\ntRtR.",
        "getattr": b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(Vos\ntRVsystem\ntR(V" + COMMAND.encode() + b"\ntR.",
        "extension": b"\x82\x01.",
        "persistent id": b"V" + b"os.system\nQ.",
        "persistent text": b"Pos.system\n.",
        "bytearray of 8 GB": b"\x80\x02cbuiltins\nbytearray\n\x8a\x08" + struct.pack("<q", 8 * 10**9) + b"\x85R.",
        "bytes of 8 GB": b"\x80\x02cbuiltins\nbytes\n\x8a\x08" + struct.pack("<q", 8 * 10**9) + b"\x85R.",
        "list of range": b"\x80\x02cbuiltins\nlist\ncbuiltins\nrange\n\x8a\x08"
        + struct.pack("<q", 10**9)
        + b"\x85R\x85R.",
        "repeated list": b"]"
        + b"q\x00("
        + b"h\x00" * 50
        + b"e"
        + b"".join(b"]q%c(" % i + b"h%c" % (i - 1) * 50 + b"e" for i in range(1, 9))
        + b".",
        "bytearray8": b"\x80\x05\x96" + struct.pack("<Q", 8 * 10**9) + b"x.",
        "binbytes8": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",
        "unicode8": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"x.",
        "frame": b"\x80\x04\x95" + struct.pack("<Q", 2**50) + b"}.",
        "long4": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"1.",
        "long text": b"L" + b"9" * 100_000 + b"L\n.",
        "memo": b"\x80\x02}r\xff\xff\xff\x7f.",
        "no end": b"\x80\x02}",
        "only end": b".",
        "marks": b"(" * 100_000 + b".",
        "deep tuples": b"N" + b"\x85" * 200_000 + b".",
        "deep lists": b"]" * 5000 + b"a" * 4999 + b".",
        "deep dicts": b"}N" * 4000 + b"}" + b"s" * 4000 + b".",
        "storage of 1 TB": b"\x80\x02ctorch\nFloatStorage\n\x8a\x06" + struct.pack("<q", 2**40)[:6] + b"\x85R.",
        "numpy of 1 TB": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n\x8a\x06"
        + struct.pack("<q", 2**40)[:6]
        + b"\x85U\x01b\x87R.",
        "loop": b"]q\x00h\x00a.",
        "dict of itself": b"}q\x00Vstate_dict\nh\x00s.",
        "a number": b"I5\n.",
        "text": b"Vx\n.",
    }
    return found


def zip_around(content: bytes, **more: bytes) -> bytes:
    """Return the pickle in a zip as torch writes it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, body in {"data.pkl": content, "byteorder": b"little", "version": b"3\n", **more}.items():
            archive.writestr(f"archive/{name}", body)
    return stream.getvalue()


def legacy_around(content: bytes) -> bytes:
    """Return the pickle as torch wrote it before 1.6."""
    head = [
        0x1950A86A20F9469CFC6C,
        1001,
        {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}},
    ]
    return b"".join(pickle.dumps(part, protocol=2) for part in head) + content + pickle.dumps([], protocol=2)
