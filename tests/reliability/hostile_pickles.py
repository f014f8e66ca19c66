# SPDX-License-Identifier: Apache-2.0
"""Pickles written to harm whoever opens them, as bytes; `marker` is a file that appears if any of their code runs."""

import os
import pickle
import struct

import numpy as np

PROTOCOL = b"\x80\x04"


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *args, state=None):
        self.parts = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.parts


def _global(module: str, name: str) -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def _text(text: str) -> bytes:
    raw = text.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def _call(module: str, name: str, *arguments: bytes) -> bytes:
    return _global(module, name) + b"(" + b"".join(arguments) + b"tR"


def _array(shape=(4,), code="f8", state=(3, "<", None, None, None, -1, -1, 0), data=b"A" * 32, fortran=False) -> bytes:
    """A pickled array of which everything can be chosen."""
    dtype = Call(np.dtype, code, False, True, state=state)
    made = Call(np.core.multiarray._reconstruct, np.ndarray, (0,), b"b", state=(1, shape, dtype, fortran, data))
    return pickle.dumps({"w": made}, protocol=4)


def _attribute(module: str, name: str, attribute: str, value: bytes) -> bytes:
    """Sets an attribute of a global through the slots part of BUILD."""
    return PROTOCOL + _global(module, name) + b"(N(" + _text(attribute) + value + b"dtb."


def lists(depth: int = 28) -> bytes:
    """The operations for a list that holds another ten times, which holds another ten times, and so on."""
    body = b"]\x940"
    for i in range(depth):
        body += b"](" + 10 * (b"h" + bytes([i])) + b"e\x940"
    return body + b"h" + bytes([depth])


def tuples(depth: int = 60) -> bytes:
    """The same with pairs, which can be keys."""
    body = b")\x94"
    return body + b"".join(b"0h" + bytes([i]) + b"h" + bytes([i]) + b"\x86\x94" for i in range(depth))


def _nested(depth: int) -> bytes:
    return PROTOCOL + lists(depth)[:-2] + b"}" + _text("w") + lists(depth)[-2:] + b"s."


def integer(size: int) -> bytes:
    """The operation for an integer of so many bytes."""
    return b"\x8b" + struct.pack("<i", size) + b"\x7f" * size


def _big_shape() -> bytes:
    """An array of 32 dimensions, which are all the same integer of 1 MB: their product takes minutes."""
    dtype = _call("numpy", "dtype", _text("f8"))
    array = _call("numpy.core.multiarray", "_reconstruct", _global("numpy", "ndarray"), b"K\x00\x85", b"C\x01b")
    state = b"(K\x01(" + integer(1 << 20) + b"\x94" + b"h\x00" * 31 + b"t" + dtype + b"\x89C\x00t"
    return PROTOCOL + array + state + b"b."


def called_again(times: int, made: bytes, arguments: bytes) -> bytes:
    """A list of the results of one call with the same arguments again and again; three operations for each."""
    again = b"h\x00h\x01R"
    return PROTOCOL + made + b"\x940" + arguments + b"\x940](" + again * times + b"e."


def ordered_again(times: int) -> bytes:
    """Ordered mappings of 64 pairs, of which each takes 4.7 kB."""
    pairs = b"".join(_text(f"{i:02}") + b"N\x86" for i in range(64))
    return called_again(times, _global("collections", "OrderedDict"), b"((" + pairs + b"lt")


def _arrays_again(times: int) -> bytes:
    """Arrays of 64 bytes; what they are made of is in the file once."""
    dtype = _call("numpy", "dtype", _text("f8")) + b"\x940"
    state = b"(K\x01K\x08\x85h\x00\x89C\x40" + bytes(64) + b"t\x940"
    call = _global("numpy.core.multiarray", "_reconstruct") + b"\x940"
    arguments = b"(" + _global("numpy", "ndarray") + b"K\x00\x85C\x01bt\x940"
    return PROTOCOL + dtype + state + call + arguments + b"](" + b"h\x02h\x03Rh\x01b" * times + b"e."


def _parts(slices: bytes, shape: bytes = b"K\x04\x85", more: bytes = b"") -> bytes:
    """A file that says its array was split, as PaddlePaddle does above 1 GiB."""
    info = b"}(" + _text("slices") + slices + _text("OriginShape") + shape + b"u"
    return PROTOCOL + b"}(" + more + _text("UnpackBigParamInfor@@") + b"}" + _text("w") + info + b"su."


def _array_many_times() -> bytes:
    """A list that holds an array of 1 MB two thousand times, which NumPy would make one array of."""
    call = _call("numpy.core.multiarray", "_reconstruct", _global("numpy", "ndarray"), b"K\x00\x85", b"C\x01b")
    data = b"B" + struct.pack("<I", 1 << 20) + bytes(1 << 20)
    state = b"(K\x01J" + struct.pack("<i", 1 << 20) + b"\x85" + _call("numpy", "dtype", _text("u1")) + b"\x89" + data
    start = _text("part") + b"(" + call + state + b"tb\x94" + b"h\x00" * 2_000 + b"l"
    return _parts(b"(" + _text("part") + b"l", more=start)


def _repeated(length: int, times: int) -> bytes:
    """One long text, encoded again and again."""
    start = _text("x" * length) + b"\x94"
    again = _global("_codecs", "encode") + b"h\x00\x85R"
    return PROTOCOL + b"](" + start + again * times + b"e."


def _colliding(count: int) -> bytes:
    """A dict of integers that all have the hash 0; making it here would take as long as reading it."""
    numbers = (((1 << 61) - 1) * i for i in range(1, count))
    return PROTOCOL + b"}(" + b"".join(b"\x8a\x0a" + n.to_bytes(10, "little") + b"N" for n in numbers) + b"u."


def running(marker) -> dict[str, bytes]:
    """Those that would run code or reach objects of the interpreter."""
    touch = f"touch {marker}"
    calls = {
        "os.system": Call(os.system, touch),
        "eval": Call(eval, f"open({str(marker)!r}, 'w')"),
        "exec": Call(exec, f"open({str(marker)!r}, 'w')"),
        "open": Call(open, str(marker), "w"),
        "mkdir in a dict": {"w": Call(os.mkdir, str(marker))},
        "getattr": Call(getattr, "text", "upper"),
        "call of a call's result": {"w": Call(Call, Call(os.system, touch))},
        "print": [1, {"a": (Call(print, "here"),)}],
    }
    found = {name: pickle.dumps(value, protocol=4) for name, value in calls.items()}
    found |= {
        "posix.system in text": b"cposix\nsystem\n(S'" + touch.encode() + b"'\ntR.",
        "subprocess": PROTOCOL
        + _call("subprocess", "Popen", b"](" + _text("touch") + _text(str(marker)) + b"e")
        + b".",
        "importlib": PROTOCOL + _call("importlib", "import_module", _text("antigravity")) + b".",
        "partial": PROTOCOL + _call("functools", "partial", _global("os", "system"), _text(touch)) + b".",
        "attrgetter": PROTOCOL + _call("operator", "attrgetter", _text("system")) + _global("os", "sep") + b"\x85R.",
        "dotted name": PROTOCOL + _text("collections") + _text("OrderedDict.__init__.__globals__") + b"\x93.",
        "builtins through numpy": PROTOCOL + _text("numpy") + _text("core.multiarray.__builtins__") + b"\x93.",
        "pickle in a pickle": PROTOCOL
        + _call("pickle", "loads", b"C" + bytes([20]) + b"cos\nsystem\n(S'id'\ntR.")
        + b".",
        "numpy.load": PROTOCOL + _call("numpy", "load", _text(str(marker)), b"N", b"\x88") + b".",
        "result called": PROTOCOL + _call("_codecs", "encode", _text("x")) + b"(tR.",
        "copyreg": PROTOCOL + _call("copyreg", "_reconstructor", _global("os", "stat_result"), b"N", b"N") + b".",
        "INST": b"(S'" + touch.encode() + b"'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nS'" + touch.encode() + b"'\no.",
        "NEWOBJ": PROTOCOL + _global("subprocess", "Popen") + _text(touch) + b"\x85\x81.",
        "EXT1": PROTOCOL + b"\x82\x01.",
        "object outside the file": PROTOCOL + _text("module.py") + b"Q.",
        "next buffer": b"\x80\x05\x97.",
        "reader's function changed": _attribute("_codecs", "encode", "__defaults__", b")"),
        "reader's type changed": _attribute("numpy", "dtype", "__setstate__", b"N"),
        "array of objects": _array(code="O8", state=(3, "|", None, None, None, -1, -1, 63), data=b"A" * 32),
        "numbers flagged as objects": _array(state=(3, "<", None, None, None, 8, 8, 1)),
        "records": _array(state=(3, "|", None, ("a",), {"a": ("f8", 0)}, 8, 8, 0)),
        "type within a type": _array(state=(3, "|", ("f8", (1 << 40,)), None, None, 8, 8, 0)),
    }
    return found


def filling() -> dict[str, bytes]:
    """Short files that ask for much memory or time."""
    return {
        "memo place 2^31": PROTOCOL + b"Nr\xff\xff\xff\x7f.",
        "memo places far apart": PROTOCOL + b"".join(b"Nr" + struct.pack("<I", i << 24) for i in range(1, 255)) + b".",
        "2^62 bytes": PROTOCOL + b"\x8e" + struct.pack("<Q", 1 << 62) + b"x.",
        "2^62 letters": PROTOCOL + b"\x8d" + struct.pack("<Q", 1 << 62) + b"x.",
        "frame of 2^62": PROTOCOL + b"\x95" + struct.pack("<Q", 1 << 62) + b"N.",
        "integer of 2 GB": PROTOCOL + b"\x8b" + struct.pack("<i", (1 << 31) - 1) + b"\x01.",
        "a million digits": b"L" + b"9" * 1_000_000 + b"L\n.",
        "list that holds itself": PROTOCOL + b"]\x94h\x00a.",
        "dict that holds itself": PROTOCOL + b"}\x94" + _text("w") + b"h\x00s.",
        "10^14 lists": _nested(14),
        "nested tuple as key": PROTOCOL + b"})\x94" + b"h\x00h\x00\x86Ns.",
        "the same text 2,000 times": _repeated(1 << 20, 2_000),
        "colliding keys": _colliding(30_000),
        "100,000 lists deep": PROTOCOL + b"]" * 100_000 + b"a" * 99_999 + b".",
        "three million operations": PROTOCOL + b"N0" * 1_500_000 + b"N.",
        "shape of 2^40": _array(shape=(1 << 40,)),
        "shape that overflows": _array(shape=(1 << 62, 4)),
        "negative shape": _array(shape=(-4,)),
        "40 dimensions": _array(shape=(1,) * 40, data=b"A" * 8),
        "strings as numbers": _array(code="S999"),
        "type code of 10^28 lists": PROTOCOL + _global("numpy", "dtype") + lists() + b"\x85R.",
        "type code of 2^60 pairs": PROTOCOL + _global("numpy", "dtype") + tuples() + b"\x85R.",
        "byte order of 10^28 lists": PROTOCOL + _call("numpy", "dtype", _text("f8")) + b"(N" + lists() + b"NNNNNNtb.",
        "array of 10^28 lists": PROTOCOL + _global("numpy.core.multiarray", "_reconstruct") + lists() + b"NN\x87R.",
        "name of 10^28 lists": PROTOCOL + _text("numpy") + lists() + b"\x93.",
        "object outside named by 10^28 lists": PROTOCOL + lists() + b"Q.",
        "part of 2^60 pairs": _parts(tuples() + b"\x85"),
        "part named by a long text often": _parts(
            b"(" + _text("x" * 1_000_000) + b"\x94" + b"h\x00" * 2_000 + b"t\x85"
        ),
        "part that is an array many times": _array_many_times(),
        "dimensions of 1 MB": _big_shape(),
        "dimension that is a truth": _array(shape=(True, 4)),
        "100,000 dimensions": _array(shape=(1,) * 100_000, data=b"A" * 8),
        "660,000 mappings of 64": ordered_again(660_000),
        "390,000 arrays of 64 bytes": _arrays_again(390_000),
        "number that is a set": pickle.dumps({"w": {1, 2}}, protocol=4),
    }
