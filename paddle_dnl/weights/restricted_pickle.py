# SPDX-License-Identifier: Apache-2.0
"""Pickle reader that can only build containers, numbers, strings and what the caller admits by name.

A pickle is a program for a small stack machine, and in Python's own reader that program may call any function. Naming the
functions that may be called is not enough: a pickle can also set attributes of what it was given, claim lengths and places
in memory that cost gigabytes, or hang the reader with colliding keys. Here

    names        that the caller did not admit are refused before anything is called;
    objects      are filled by their own checked `__setstate__` only, so that the reader itself cannot be altered;
    operations   that weights never need do not exist, and the others are counted;
    memory       is bounded by the file size: stated lengths are checked against the bytes that exist, and all objects made
                 from them are charged to an allowance;
    messages     show only the start of texts: nested lists that repeat one list are short in a file, but endless when
                 printed.

It extends the pure Python unpickler, since the C one allocates memory for the largest memo index in a file (8 bytes can ask
for 32 GB); weights have few, large operations, so that it is not slower in practice.
"""

import collections
import pickle

_MAX_OPERATIONS = 2_000_000  # a large model with its optimizer has 0.2 million
_MAX_OTHER_KEYS = 5_000  # integers may be chosen to collide; strings are hashed with a secret
_KEYS = (str, int, float, bool, bytes, type(None))  # hashing a nested tuple can take arbitrarily long
_MAX_DIMENSIONS = 64
_MAX_SIZE = 1 << 48  # elements; multiplying unbounded integers can take arbitrarily long
_SHOWN = 80

# Bytes: upper bounds of the real costs in CPython 3.10 to 3.13.
_FREE = 96 << 20  # allowed for every file
_PER_BYTE = 4  # an array is its text to encode, its bytes and itself
_OPERATION = 80
_OBJECT = 128
_ITEM = 16
_PAIR = 240  # of an ordered mapping, which has a list of its keys besides

_PLAIN_OPERATIONS = (
    "MARK STOP POP POP_MARK DUP FLOAT INT BININT BININT1 BININT2 LONG LONG1 LONG4 NONE NEWTRUE NEWFALSE BINFLOAT STRING "
    "BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 APPEND "
    "APPENDS LIST EMPTY_LIST DICT EMPTY_DICT SETITEM SETITEMS TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_TUPLE GET BINGET LONG_BINGET "
    "PUT BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL REDUCE NEWOBJ BUILD BINPERSID PROTO FRAME"
).split()


class Allowance:
    """Limit on the memory for reading one file; freed memory is not credited.

    Args:
        size: bytes of the file.
    """

    def __init__(self, size: int):
        self.limit = self.left = _FREE + _PER_BYTE * size

    def charge(self, count: int) -> None:
        """Charges `count` bytes.

        Raises:
            UnpicklingError: the limit is exceeded.
        """
        self.left -= count
        if self.left < 0:
            raise pickle.UnpicklingError(f"it would take more memory than {self.limit >> 20} MiB")

    def charge_copy(self, value, item: int = _ITEM) -> None:
        """Charges a copy of a text, of bytes, or of a container with `item` bytes per entry."""
        if isinstance(value, str | bytes):
            self.charge(len(value))
        elif isinstance(value, list | tuple | dict):
            self.charge(_OBJECT + item * len(value))


def shown(value) -> str:
    """For error messages: the start of a text, the type of anything else."""
    return repr(value[:_SHOWN]) if type(value) is str else f"something of type {type(value).__name__}"


def sizes(numbers=()) -> tuple:
    """Checks numbers of a shape, strides or offset before calculations with them; returns a tuple.

    Raises:
        UnpicklingError: more than 64 numbers, or one is not an integer from 0 to 2^48.
    """
    if type(numbers) not in (tuple, list) or len(numbers) > _MAX_DIMENSIONS:
        raise pickle.UnpicklingError(f"a shape that is no list of at most {_MAX_DIMENSIONS} numbers")
    if not all(type(n) is int and 0 <= n <= _MAX_SIZE for n in numbers):
        raise pickle.UnpicklingError("a shape, stride or offset that no array has")
    return tuple(numbers)


class Admitted:
    """A function that a pickle may call, but not read or modify.

    Args:
        function: what is called.
        item: upper bound of the bytes of its result per entry of a container argument.
    """

    __slots__ = ("call", "item")

    def __init__(self, function, item: int = _ITEM):
        self.call = function
        self.item = item

    def __setstate__(self, state):
        raise pickle.UnpicklingError("it sets the inside of a function")


def _ordered(pairs=()) -> collections.OrderedDict:
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs):
        raise pickle.UnpicklingError("an ordered mapping with keys that are no names")
    return collections.OrderedDict(pairs)


ORDERED_DICT = {("collections", "OrderedDict"): Admitted(_ordered, _PAIR)}


class BoundedFile:
    """A file whose `read` allocates no memory beyond the end of the file."""

    def __init__(self, file):
        self._file = file
        here = file.tell()
        self._end = file.seek(0, 2)
        file.seek(here)

    def read(self, size: int) -> bytes:
        """At most `size` bytes."""
        return self._file.read(min(size, self._end - self._file.tell()))

    def readline(self) -> bytes:
        """Up to the next line break; names and numbers in old pickles are short."""
        return self._file.readline(1 << 16)


def _counted(handler):
    def run(self):
        self.operations += 1
        if self.operations > _MAX_OPERATIONS:
            raise pickle.UnpicklingError(f"it has more than {_MAX_OPERATIONS} operations")
        self.allowance.charge(_OPERATION)
        handler(self)

    return run


class RestrictedUnpickler(pickle._Unpickler):
    """Reads one pickle from a seekable binary file.

    Args:
        file: at the start of the pickle; afterwards behind it.
        admitted: (module, name) to `Admitted`, or to a plain value that stands for the name.
        allowance: for all that is read of the file.
        encoding: of the strings of Python 2.
    """

    def __init__(self, file, admitted: dict, allowance: Allowance, encoding: str = "ASCII"):
        super().__init__(BoundedFile(file), fix_imports=False, encoding=encoding)
        self.admitted, self.allowance = admitted, allowance
        self.operations = self.other_keys = 0

    def find_class(self, module, name):
        try:
            return self.admitted[(module, name)]
        except KeyError:
            asked = f"{module[:_SHOWN]}.{name[:_SHOWN]}"
            raise pickle.UnpicklingError(f"it asks for {asked}, which weights never need") from None

    def persistent_load(self, pid):
        raise pickle.UnpicklingError("it refers to objects outside the file")

    def _charge(self, values: tuple, item: int = _ITEM) -> None:
        """Charges arguments of a call, which may copy them: one object in the file may be passed many times."""
        self.allowance.charge_copy(values)
        for value in values:
            self.allowance.charge_copy(value, item)

    def _call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(function) is not Admitted or type(arguments) is not tuple:
            raise pickle.UnpicklingError(f"it calls a {type(function).__name__}")
        self._charge(arguments, function.item)
        self.stack.append(function.call(*arguments))

    def _build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, collections.OrderedDict):
            return  # PyTorch's `_metadata` attribute of the mapping, which is not needed
        fill = getattr(type(target), "__setstate__", None)
        if fill is None:
            raise pickle.UnpicklingError(f"it sets the inside of a {type(target).__name__}")
        self._charge(state if type(state) is tuple else (state,))
        fill(target, state)

    def _set(self, target, items: list) -> None:
        keys = items[::2]
        strange = [key for key in keys if type(key) not in _KEYS]
        if strange:
            raise pickle.UnpicklingError(f"a key is a {type(strange[0]).__name__}")
        self.other_keys += sum(type(key) is not str for key in keys)
        if self.other_keys > _MAX_OTHER_KEYS:
            raise pickle.UnpicklingError(f"it has more than {_MAX_OTHER_KEYS} keys that are no names")
        for key, value in zip(keys, items[1::2], strict=True):
            target[key] = value

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set(self.stack[-1], [key, value])

    def _set_items(self) -> None:
        items = self.pop_mark()
        self._set(self.stack[-1], items)

    def _make_dict(self) -> None:
        items, made = self.pop_mark(), {}
        self._set(made, items)
        self.append(made)

    dispatch = {}
    for _name in _PLAIN_OPERATIONS:
        _code = getattr(pickle, _name)[0]
        dispatch[_code] = _counted(pickle._Unpickler.dispatch[_code])
    for _name, _handler in (
        ("REDUCE", _call),
        ("NEWOBJ", _call),
        ("BUILD", _build),
        ("SETITEM", _set_item),
        ("SETITEMS", _set_items),
        ("DICT", _make_dict),
    ):
        dispatch[getattr(pickle, _name)[0]] = _counted(_handler)
    del _name, _code, _handler

    def load(self):
        """The object.

        Raises:
            Exception: of almost any kind for a damaged or refused file; callers convert it.
        """
        try:
            return super().load()
        except KeyError as error:
            # The table of operations; keys of the file's own mappings are never looked up.
            code = error.args[0] if error.args else None
            what = f"operation {code}" if isinstance(code, int) else "an operation"
            raise pickle.UnpicklingError(f"it uses {what}, which weights never need") from error
