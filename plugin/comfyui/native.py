"""`vocable.h` for Python: the functions by ctypes, and objects that free what they own.

Nothing is loaded until `library()` is called. Every call gives up Python's lock while it is inside, so the server goes on.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import functools
import json
from collections.abc import Callable, Iterable, Iterator
from ctypes import POINTER, Structure, byref, c_char_p, c_int32, c_int64, c_size_t, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from typing import Any

from .library import find

ABI_VERSION = 1


class Kind(enum.IntEnum):
    """What a value is."""

    NONE = 0
    BOOL = 1
    INT = 2
    FLOAT = 3
    STRING = 4
    TENSOR = 5
    LIST = 6
    MAP = 7
    HANDLE = 8


class ErrorKind(enum.IntEnum):
    """What kind of thing went wrong."""

    INVALID_INPUT = 1
    NOT_FOUND = 2
    INCOMPATIBLE = 3
    OUT_OF_MEMORY = 4
    CANCELLED = 5
    DIVERGED = 6
    PANICKED = 7
    INTERNAL = 8

    @classmethod
    def _missing_(cls, value: object) -> ErrorKind:
        return cls.INTERNAL


class EventKind(enum.IntEnum):
    """What happened in a job."""

    PROGRESS = 1
    STATUS = 2
    LOG = 3
    DONE = 4


class Part(enum.IntEnum):
    """The parts of a model whose weights can be handed in."""

    MODEL = 1
    CLIP = 2
    VAE = 3


class VocableError(RuntimeError):
    """An error of the library. Its text is what the user reads: what is wrong, and what to do about it."""

    def __init__(self, kind: ErrorKind, message: str, help: str = "", causes: str = "") -> None:
        self.kind, self.message, self.help, self.causes = kind, message, help, causes
        lines = [message]
        lines += [f"  because: {cause}" for cause in causes.splitlines()]
        lines += [help] if help else []
        super().__init__("\n".join(lines))


class DType(Structure):
    """DLPack's DLDataType."""

    _fields_ = [("code", c_uint8), ("bits", c_uint8), ("lanes", c_uint16)]


class Tensor(Structure):
    """DLPack's DLTensor."""

    _fields_ = [
        ("data", c_void_p),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("ndim", c_int32),
        ("dtype", DType),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
        ("byte_offset", c_uint64),
    ]


Release = ctypes.CFUNCTYPE(None, c_void_p)

# name: (what it answers, what it takes). `c_void_p` stands for every object of the library.
_OUT = POINTER(c_void_p)
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "vocable_abi_version": (c_uint32, []),
    "vocable_info_json": (c_void_p, [_OUT]),
    "vocable_nodes_json": (c_void_p, [_OUT]),
    "vocable_string_free": (None, [c_void_p]),
    "vocable_error_code": (c_uint32, [c_void_p]),
    "vocable_error_message": (c_char_p, [c_void_p]),
    "vocable_error_help": (c_char_p, [c_void_p]),
    "vocable_error_causes": (c_char_p, [c_void_p]),
    "vocable_error_free": (None, [c_void_p]),
    "vocable_value_from_json": (c_void_p, [c_char_p, _OUT]),
    "vocable_value_to_json": (c_void_p, [c_void_p, _OUT]),
    "vocable_value_from_tensor": (c_void_p, [POINTER(Tensor), c_uint64, Release, c_void_p, _OUT]),
    "vocable_value_from_tensor_copy": (c_void_p, [POINTER(Tensor), c_uint64, _OUT]),
    "vocable_value_tensor": (c_void_p, [c_void_p, POINTER(Tensor)]),
    "vocable_list_new": (c_void_p, [_OUT]),
    "vocable_list_push": (c_void_p, [c_void_p, c_void_p]),
    "vocable_map_new": (c_void_p, [_OUT]),
    "vocable_map_set": (c_void_p, [c_void_p, c_char_p, c_void_p]),
    "vocable_value_get_kind": (c_uint32, [c_void_p]),
    "vocable_value_count": (c_size_t, [c_void_p]),
    "vocable_value_at": (c_void_p, [c_void_p, c_size_t, _OUT]),
    "vocable_map_name_at": (c_void_p, [c_void_p, c_size_t, _OUT]),
    "vocable_handle_type": (c_void_p, [c_void_p, _OUT]),
    "vocable_value_free": (None, [c_void_p]),
    "vocable_node_validate": (c_void_p, [c_char_p, c_void_p, c_char_p]),
    "vocable_node_fingerprint": (c_void_p, [c_char_p, c_void_p, c_char_p, _OUT]),
    "vocable_job_start": (c_void_p, [c_char_p, c_void_p, c_char_p, _OUT]),
    "vocable_import_start": (c_void_p, [c_uint32, c_void_p, c_void_p, c_char_p, _OUT]),
    "vocable_job_poll": (c_void_p, [c_void_p, c_uint32, _OUT]),
    "vocable_event_get_kind": (c_uint32, [c_void_p]),
    "vocable_event_step": (c_uint64, [c_void_p]),
    "vocable_event_total": (c_uint64, [c_void_p]),
    "vocable_event_text": (c_char_p, [c_void_p]),
    "vocable_event_level": (c_uint32, [c_void_p]),
    "vocable_event_picture": (c_void_p, [c_void_p, POINTER(c_uint32), POINTER(c_uint32)]),
    "vocable_event_free": (None, [c_void_p]),
    "vocable_job_cancel": (None, [c_void_p]),
    "vocable_job_take_outputs": (c_void_p, [c_void_p, _OUT, _OUT]),
    "vocable_job_free": (None, [c_void_p]),
}


@functools.cache
def library() -> ctypes.CDLL:
    """The library, loaded at the first call and never unloaded."""
    path = find()
    try:
        loaded = ctypes.CDLL(str(path))
        for name, (answer, takes) in _FUNCTIONS.items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = answer, takes
    except (OSError, AttributeError) as error:
        help = "Install the pack for this platform again, or build the library anew."
        raise VocableError(ErrorKind.INCOMPATIBLE, f"{path} cannot be used: {error}", help) from error
    version = loaded.vocable_abi_version()
    if version < ABI_VERSION:
        message = f"{path} speaks version {version} of the interface, this pack needs {ABI_VERSION}"
        raise VocableError(ErrorKind.INCOMPATIBLE, message, "Install the pack and its library from one release.")
    return loaded


def _check(error: int | None) -> None:
    """Raises the error, if there is one, and frees it."""
    if not error:
        return
    lib = library()
    try:
        texts = (function(error).decode() for function in (lib.vocable_error_message, lib.vocable_error_help, lib.vocable_error_causes))
        raise VocableError(ErrorKind(lib.vocable_error_code(error)), *texts)
    finally:
        lib.vocable_error_free(error)


def _pointer(call: Callable[..., int | None], *arguments: Any) -> int:
    """What a function wrote behind its last argument, `out`."""
    out = c_void_p()
    _check(call(*arguments, byref(out)))
    return out.value or 0


def _text(pointer: int) -> str:
    """Text that came out of the library, which is freed."""
    try:
        return ctypes.string_at(pointer).decode()
    finally:
        library().vocable_string_free(pointer)


class _Owned:
    """Something that the library made and that must be freed with the function `_free`."""

    _free: str
    __slots__ = ("__weakref__", "_pointer")

    def __init__(self, pointer: int) -> None:
        self._pointer: int | None = pointer

    def free(self) -> None:
        """Frees it now; more than once is harmless."""
        pointer, self._pointer = self._pointer, None
        if pointer:
            getattr(library(), self._free)(pointer)

    def __del__(self) -> None:
        # At the end of the process the module may be half gone; so is all memory.
        with contextlib.suppress(Exception):
            self.free()


# Objects that lend their memory to the library, until it says that it is done with them.
_lent: dict[int, Any] = {}


@Release
def _release(context: int) -> None:
    _lent.pop(context, None)


class Value(_Owned):
    """A value of the library: what travels along a link."""

    _free = "vocable_value_free"
    __slots__ = ()

    @classmethod
    def json(cls, value: Any) -> Value:
        """Of what JSON can say."""
        text = json.dumps(value).encode()
        return cls(_pointer(library().vocable_value_from_json, text))

    @classmethod
    def lend(cls, tensor: Tensor, byte_length: int, owner: Any) -> Value:
        """Of memory that `owner` keeps alive and that nobody changes; nothing is copied."""
        # The key is not the object's id: one object may be lent more than once.
        key = id(token := object())
        _lent[key] = (token, owner)
        try:
            return cls(_pointer(library().vocable_value_from_tensor, byref(tensor), byte_length, _release, key))
        except VocableError:
            _lent.pop(key, None)
            raise

    @classmethod
    def list(cls, items: Iterable[Value]) -> Value:
        """Of other values, in order."""
        made = cls(_pointer(library().vocable_list_new))
        for item in items:
            _check(library().vocable_list_push(made._pointer, item._pointer))
        return made

    @classmethod
    def map(cls, items: Iterable[tuple[str, Value]]) -> Value:
        """Of other values, by name."""
        made = cls(_pointer(library().vocable_map_new))
        for name, item in items:
            _check(library().vocable_map_set(made._pointer, name.encode(), item._pointer))
        return made

    @property
    def kind(self) -> Kind:
        """What it is."""
        return Kind(library().vocable_value_get_kind(self._pointer))

    def __len__(self) -> int:
        return library().vocable_value_count(self._pointer)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Value]:
        """The items of a list, or of a map in the order of its names."""
        for index in range(len(self)):
            yield Value(_pointer(library().vocable_value_at, self._pointer, index))

    def names(self) -> list[str]:
        """The names of a map, in order."""
        return [_text(_pointer(library().vocable_map_name_at, self._pointer, index)) for index in range(len(self))]

    def to_json(self) -> Any:
        """As JSON; tensors and handles as descriptions."""
        return json.loads(_text(_pointer(library().vocable_value_to_json, self._pointer)))

    def tensor(self) -> Tensor:
        """A view of the tensor; it is good for as long as this value lives."""
        view = Tensor()
        _check(library().vocable_value_tensor(self._pointer, byref(view)))
        return view

    def handle_type(self) -> str:
        """A handle's type, such as MODEL."""
        return _text(_pointer(library().vocable_handle_type, self._pointer))


class Event(_Owned):
    """Something that happened in a job."""

    _free = "vocable_event_free"
    __slots__ = ()

    @property
    def kind(self) -> int:
        """One of EventKind, or a number of a later library."""
        return library().vocable_event_get_kind(self._pointer)

    @property
    def progress(self) -> tuple[int, int]:
        """How much is done, and of how much."""
        return library().vocable_event_step(self._pointer), library().vocable_event_total(self._pointer)

    @property
    def text(self) -> str:
        """The line of a status or a log."""
        return (library().vocable_event_text(self._pointer) or b"").decode()

    @property
    def level(self) -> int:
        """How much a log line matters: 1 debug to 4 error."""
        return library().vocable_event_level(self._pointer)

    def picture(self) -> tuple[int, int, bytes] | None:
        """Width, height and RGB bytes of the picture, if there is one."""
        width, height = c_uint32(), c_uint32()
        data = library().vocable_event_picture(self._pointer, byref(width), byref(height))
        if not data:
            return None
        return width.value, height.value, ctypes.string_at(data, width.value * height.value * 3)


class Job(_Owned):
    """A node, or an import, at work on a thread of its own."""

    _free = "vocable_job_free"
    __slots__ = ()

    @classmethod
    def start(cls, node_id: str, inputs: Value, host: dict[str, Any]) -> Job:
        """Starts a node."""
        return cls(_pointer(library().vocable_job_start, node_id.encode(), inputs._pointer, json.dumps(host).encode()))

    @classmethod
    def start_import(cls, part: Part, tensors: Value, settings: Value, host: dict[str, Any]) -> Job:
        """Starts to make a handle of weights."""
        arguments = (part, tensors._pointer, settings._pointer, json.dumps(host).encode())
        return cls(_pointer(library().vocable_import_start, *arguments))

    def poll(self, timeout_ms: int = 0) -> Event | None:
        """The next event, if one comes in that time."""
        event = _pointer(library().vocable_job_poll, self._pointer, timeout_ms)
        return Event(event) if event else None

    def cancel(self) -> None:
        """Asks it to stop, which it does within a second."""
        if self._pointer:
            library().vocable_job_cancel(self._pointer)

    def take_outputs(self) -> tuple[Value, dict[str, Any] | None]:
        """The results of a job that is done, and what the node shows; raises the error of one that failed."""
        outputs, ui = c_void_p(), c_void_p()
        _check(library().vocable_job_take_outputs(self._pointer, byref(outputs), byref(ui)))
        return Value(outputs.value or 0), json.loads(_text(ui.value)) if ui.value else None


def nodes() -> list[dict[str, Any]]:
    """All node specs of the library."""
    return json.loads(_text(_pointer(library().vocable_nodes_json)))


def info() -> dict[str, Any]:
    """Who the library is."""
    return json.loads(_text(_pointer(library().vocable_info_json)))


def validate(node_id: str, inputs: Value, host: dict[str, Any]) -> None:
    """Looks at literal inputs before anything runs."""
    _check(library().vocable_node_validate(node_id.encode(), inputs._pointer, json.dumps(host).encode()))


def fingerprint(node_id: str, inputs: Value, host: dict[str, Any]) -> str:
    """Text that changes when the node's result would although its inputs are the same."""
    return _text(_pointer(library().vocable_node_fingerprint, node_id.encode(), inputs._pointer, json.dumps(host).encode()))
