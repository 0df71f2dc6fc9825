"""ComfyUI's values as the library's, and back.

Tensors go in without a copy where they lie in ordinary memory in a type that the library knows, and are copied where they do not: from the GPU,
out of an unknown type, or with strides that a plain copy makes simpler. What comes out is copied, so that nothing depends on the library's memory.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import comfy.model_management
import torch
from comfy_execution.graph_utils import ExecutionBlocker

from .native import DType, Kind, Tensor, Value
from .specs import Spec

# torch's types by DLPack's code and bits.
_TYPES = {
    torch.float64: (2, 64),
    torch.float32: (2, 32),
    torch.float16: (2, 16),
    torch.bfloat16: (4, 16),
    torch.int64: (0, 64),
    torch.int32: (0, 32),
    torch.uint8: (1, 8),
    torch.bool: (6, 8),
}
_BY_CODE = {code: dtype for dtype, code in _TYPES.items()} | {(1, 32): torch.uint32}

# Pictures come as they are elsewhere, but the library's nodes want these as f32.
_PICTURES = ("IMAGE", "MASK")

# A list of numbers longer than this comes over as one text rather than number by number.
_LONG = 64


def tensor_value(tensor: torch.Tensor, dtype: torch.dtype | None = None) -> Value:
    """Lends a tensor to the library, as `dtype` if that is given."""
    if dtype is None and tensor.dtype not in _TYPES:
        dtype = torch.float16 if tensor.element_size() == 1 else torch.float32
    plain = tensor.detach().to(device="cpu", dtype=dtype or tensor.dtype).contiguous()
    code, bits = _TYPES[plain.dtype]
    shape = (ctypes.c_int64 * max(plain.ndim, 1))(*plain.shape)
    view = Tensor(
        data=plain.data_ptr(),
        device_type=1,
        device_id=0,
        ndim=plain.ndim,
        dtype=DType(code, bits, 1),
        shape=shape,
        strides=None,
        byte_offset=0,
    )
    return Value.lend(view, plain.numel() * plain.element_size(), (plain, shape))


def to_value(value: Any, kind: str = "") -> Value:
    """A value of a graph, which an input of type `kind` takes."""
    if isinstance(value, Value):
        return value
    if isinstance(value, torch.Tensor):
        if kind in _PICTURES:
            return tensor_value(_picture(value, kind), torch.float32)
        return tensor_value(value)
    if isinstance(value, dict):
        return Value.map((str(name), to_value(item)) for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return Value.list(to_value(item, kind) for item in value)
    if hasattr(value, "item"):
        # A number of numpy.
        value = value.item()
    if kind == "FLOAT" and value is not None:
        value = float(value)
    return Value.json(value)


def _picture(tensor: torch.Tensor, kind: str) -> torch.Tensor:
    """With the dimension of the batch, which some nodes leave out."""
    return tensor.unsqueeze(0) if tensor.ndim == (3 if kind == "IMAGE" else 2) else tensor


def from_value(value: Value) -> Any:
    """A result of the library for other nodes. Handles stay what they are: only the library can open them."""
    kind = value.kind
    if kind is Kind.TENSOR:
        return _from_tensor(value)
    if kind is Kind.HANDLE:
        return value
    if kind is Kind.LIST:
        if len(value) > _LONG and next(iter(value)).kind in (Kind.INT, Kind.FLOAT):
            return value.to_json()
        return [from_value(item) for item in value]
    if kind is Kind.MAP:
        return dict(zip(value.names(), map(from_value, value)))
    return value.to_json()


def _from_tensor(value: Value) -> torch.Tensor:
    view = value.tensor()
    shape = [view.shape[axis] for axis in range(view.ndim)]
    dtype = _BY_CODE[view.dtype.code, view.dtype.bits]
    if 0 in shape:
        return torch.empty(shape, dtype=dtype)
    strides = [view.strides[axis] for axis in range(view.ndim)] if view.strides else _row_major(shape)
    # How far the last element lies from the first, in elements.
    reach = sum((size - 1) * stride for size, stride in zip(shape, strides)) + 1
    size = reach * dtype.itemsize
    memory = (ctypes.c_uint8 * size).from_address(view.data + view.byte_offset)
    flat = torch.frombuffer(memory, dtype=dtype, count=reach)
    return torch.as_strided(flat, shape, strides).clone(memory_format=torch.contiguous_format)


def _row_major(shape: list[int]) -> list[int]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return strides[::-1]


def outputs(spec: Spec, results: list[Value]) -> list[Any]:
    """The results of a node, in the order of its outputs."""
    return [_output(entry, from_value(result)) for entry, result in zip(spec["outputs"], results)]


def _output(entry: Spec, value: Any) -> Any:
    if value is None and entry["type"] in _PICTURES:
        # There is no picture, so what would show or save it does not run.
        return ExecutionBlocker(None)
    place = _PLACES.get(entry["type"])
    return place(value) if place else value


def _as_intermediate(tensor: torch.Tensor) -> torch.Tensor:
    """Where ComfyUI keeps pictures between nodes, which its options decide."""
    management = comfy.model_management
    # Earlier versions have no choice of the type.
    dtype = getattr(management, "intermediate_dtype", lambda: torch.float32)()
    return tensor.to(device=management.intermediate_device(), dtype=dtype)


def _conditioning(entries: list[Any]) -> list[Any]:
    device = comfy.model_management.intermediate_device()
    return [[_on(device, tensor), {name: _on(device, item) for name, item in options.items()}] for tensor, options in entries]


def _on(device: torch.device, item: Any) -> Any:
    return item.to(device) if isinstance(item, torch.Tensor) else item


_PLACES: dict[str, Callable[[Any], Any]] = {"IMAGE": _as_intermediate, "MASK": _as_intermediate, "CONDITIONING": _conditioning}
