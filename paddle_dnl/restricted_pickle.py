"""A reader of pickles that can only build containers, numbers, strings and what a caller admits by name.

A pickle is a program for a small stack machine, and in Python's own reader that program may call any function. Naming the
functions that may be called is not enough: a pickle can also set attributes of what it was given, claim lengths and places
in memory that cost gigabytes, or hang the reader with colliding keys. Here

    names        that the caller did not admit are refused before anything is called;
    objects      are filled by their own checked `__setstate__` only, so that nothing of the reader can be altered;
    operations   that weights never need do not exist, and the others are counted;
    memory       grows with what is in the file: no length is believed before the bytes are there.

The machine is the pure Python one, since the C one takes memory for the largest place that a file numbers (8 bytes can ask
for 32 GB); weights have few operations and large ones, so that it is not slower in practice.
"""

import collections
import pickle

_MAX_OPERATIONS = 2_000_000  # a large model with its optimizer has 0.2 million
_MAX_OTHER_KEYS = 5_000  # integers may be chosen to collide; strings are hashed with a secret
_KEYS = (str, int, float, bool, bytes, type(None))  # the hash of a tuple can take for ever
_SHORT = 64

_PLAIN_OPERATIONS = (
    "MARK STOP POP POP_MARK DUP FLOAT INT BININT BININT1 BININT2 LONG LONG1 LONG4 NONE NEWTRUE NEWFALSE BINFLOAT STRING "
    "BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 APPEND "
    "APPENDS LIST EMPTY_LIST DICT EMPTY_DICT SETITEM SETITEMS TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_TUPLE GET BINGET LONG_BINGET "
    "PUT BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL REDUCE NEWOBJ BUILD BINPERSID PROTO FRAME"
).split()


class Admitted:
    """A function that a pickle may call; nothing of it can be read or set from there."""

    __slots__ = ("call",)

    def __init__(self, function):
        self.call = function

    def __setstate__(self, state):
        raise pickle.UnpicklingError("it sets the inside of a function")


def _ordered(pairs=()) -> collections.OrderedDict:
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs):
        raise pickle.UnpicklingError("an ordered mapping with keys that are no names")
    return collections.OrderedDict(pairs)


ORDERED_DICT = {("collections", "OrderedDict"): Admitted(_ordered)}


class BoundedFile:
    """A file for the reader; asking for more than there is takes no memory."""

    def __init__(self, file):
        self._file = file
        here = file.tell()
        self._end = file.seek(0, 2)
        self.size = self._end - here
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
        handler(self)

    return run


class RestrictedUnpickler(pickle._Unpickler):
    """Reads one pickle from a seekable binary file.

    Args:
        file: at the start of the pickle; afterwards behind it.
        admitted: (module, name) to `Admitted`, or to a plain value that stands for the name.
        encoding: of the strings of Python 2.
    """

    def __init__(self, file, admitted: dict, encoding: str = "ASCII"):
        bounded = BoundedFile(file)
        super().__init__(bounded, fix_imports=False, encoding=encoding)
        self.admitted = admitted
        self.operations = self.other_keys = 0
        self.left_to_copy = (
            2 * bounded.size
        )  # protocol 2 hands an array's bytes on twice: as text to encode, then as bytes

    def find_class(self, module, name):
        try:
            return self.admitted[(module, name)]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which weights never need") from None

    def persistent_load(self, pid):
        raise pickle.UnpicklingError("it refers to objects outside the file")

    def _charge(self, values: tuple) -> None:
        """What is handed on may be copied there; one long text of the file, handed on often, must not fill the memory."""
        for value in values:
            if isinstance(value, str | bytes | list | tuple | dict) and len(value) > _SHORT:
                self.left_to_copy -= len(value)
                if self.left_to_copy < 0:
                    raise pickle.UnpicklingError("it uses the same data again and again")

    def _call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(function) is not Admitted or type(arguments) is not tuple:
            raise pickle.UnpicklingError(f"it calls a {type(function).__name__}")
        self._charge(arguments)
        self.stack.append(function.call(*arguments))

    def _build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, collections.OrderedDict):
            return  # PyTorch's `_metadata`, an attribute of the mapping; it is not needed
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
            Exception: of almost any kind for a file that is damaged or asks for what is not admitted; callers make it one.
        """
        try:
            return super().load()
        except KeyError as error:
            # The table of operations; keys of the file's own mappings are never looked up.
            code = error.args[0] if error.args else None
            what = f"operation {code}" if isinstance(code, int) else "an operation"
            raise pickle.UnpicklingError(f"it uses {what}, which weights never need") from error
