"""The library's copies of ComfyUI's models: made once, found again by identity, given back when ComfyUI asks."""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from dataclasses import dataclass
from typing import Any

import torch

from . import memory, native
from .convert import tensor_value
from .jobs import Show, finish, raise_if_interrupted
from .native import Job, Value
from .sources import Source, look

# Copies of each part that are kept. Two: a model and the same one with another LoRA can be compared without copying at every run.
KEEP = 2
# Weights are collected in slices of this many seconds; in between ComfyUI may stop the run or go on with other nodes.
SLICE_SECONDS = 0.05

_PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
_BYTES = {"f32": 4, "bf16": 2, "f16": 2}


@dataclass(eq=False)
class Held:
    """A copy that the library has."""

    identity: tuple[Any, ...]
    copy: memory.Copy
    module: weakref.ref | None = None
    value: Value | None = None

    def release(self) -> None:
        """Lets the library free it as soon as no job uses it."""
        self.copy.held = False
        if self.value is not None:
            self.value = None
            logging.info("Vocable gave back its copy of a %s (%.2f GiB)", self.identity[0].name, self.copy.bytes / memory.GIB)

    def alive(self) -> bool:
        """Whether it can be used, for a model that is still there."""
        return self.value is not None and self.module is not None and self.module() is not None


# The newest last. What was released stays here until the next look: ComfyUI may be in the middle of walking over its own list.
_held: list[Held] = []


async def handle(kind: str, value: Any, show: Show, host: dict[str, Any]) -> Value:
    """The library's MODEL, CLIP or VAE for ComfyUI's."""
    source = look(kind, value)
    identity = (*source.identity(), id(source.patcher.model))
    _forget(lambda held: not held.alive())
    for held in _held:
        if held.identity == identity and held.alive():
            _held.remove(held)
            _held.append(held)
            return held.value
    # Nobody else is copying it: nodes of ours take turns.
    return await _make(source, identity, show, host)


def release_all() -> None:
    """Gives back all copies; those that a job uses go when it ends."""
    for held in _held:
        held.copy.detach()
    _forget(lambda held: True)


def _forget(which: Any) -> None:
    for held in [held for held in _held if which(held)]:
        _held.remove(held)
        held.copy.detach()


async def _make(source: Source, identity: tuple[Any, ...], show: Show, host: dict[str, Any]) -> Value:
    part = source.part
    same_part = [held for held in _held if held.identity[0] == part]
    for held in same_part[: max(0, len(same_part) - KEEP + 1)]:
        _forget(lambda other, old=held: other is old)
    dtype = source.dtype()
    precision = _PRECISIONS.get(dtype, "f16" if dtype.itemsize == 1 else "f32")
    device = _device(source)
    size = sum(weight.numel() for weight in source.saved.values()) * _BYTES[precision]
    while device.type == "cpu" and _held and memory.is_short_of(size):
        # The oldest first: ComfyUI itself frees nothing where all is ordinary memory.
        _forget(lambda other: other is _held[0])
    show.status(f"copying the {part.name} ({size / memory.GIB:.2f} GiB)")
    before, started = memory.state(device), time.monotonic()
    held = Held(identity, memory.Copy(size, device, source.patcher.load_device, lambda: None))
    release = _calling(weakref.ref(held))
    held.copy.release = release
    # ComfyUI drops models when it lacks memory; the copy goes with the module that it was made of.
    held.module = weakref.ref(source.patcher.model, lambda _: release())
    memory.make_room(held.copy)
    tensors = await _collect(source)
    settings = {"names": "comfyui", "name": source.name, "precision": precision, "device": "cpu" if device.type == "cpu" else "auto"}
    values = [(name, Value.json(text)) for name, text in (settings | source.settings).items()]
    values += [] if source.sigmas is None else [("sigmas", tensor_value(source.sigmas))]
    job = Job.start_import(part, tensors, Value.map(values), host)
    tensors.free()
    results, _ = await finish(job, show)
    value = next(iter(results))
    if held.copy.held:
        held.value = value
        _held.append(held)
    # Else ComfyUI wanted the room back meanwhile: the node that asked has it, and nobody keeps it.
    seconds = time.monotonic() - started
    after = memory.state(device)
    logging.info(
        "Vocable copied the %s %s as %s in %.1f s, %.2f GiB; before: %s; after: %s",
        part.name, source.name, f"{precision} on {device.type}", seconds, size / memory.GIB, before, after,
    )  # fmt: skip
    return value


def _calling(held: weakref.ref) -> Any:
    """Releases what the reference points to; the copy must not keep it alive."""

    def release() -> None:
        found = held()
        if found is not None:
            found.release()

    return release


def _device(source: Source) -> torch.device:
    """Where the library will keep the copy: with ComfyUI's model, if the library was built for that."""
    wanted = source.patcher.load_device
    built_for = native.info().get("devices", ["cpu"])
    return wanted if wanted.type in built_for else torch.device("cpu")


async def _collect(source: Source) -> Value:
    """All weights, lent to the library."""
    lent: list[tuple[str, Value]] = []
    pause = time.monotonic() + SLICE_SECONDS
    with torch.inference_mode():
        for name, weight in source.weights():
            lent.append((name, tensor_value(weight)))
            if time.monotonic() >= pause:
                raise_if_interrupted()
                await asyncio.sleep(0)
                pause = time.monotonic() + SLICE_SECONDS
    return Value.map(lent)


def in_use() -> int:
    """How many bytes the copies take."""
    return sum(held.copy.bytes for held in _held if held.alive())
