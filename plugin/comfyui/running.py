"""Runs a node: inputs in, the job, results out."""

from __future__ import annotations

import gc
import logging
from typing import Any

import torch
from comfy_api.latest import io

from . import convert, files, memory, models
from .jobs import Show, finish, turn
from .native import ErrorKind, Job, Value, VocableError
from .specs import Spec

MODEL_KINDS = ("MODEL", "CLIP", "VAE")


async def run(spec: Spec, inputs: dict[str, Any]) -> io.NodeOutput:
    """Runs a node. Where memory runs out, ComfyUI's models are unloaded and the node is tried once more."""
    show = Show(spec["display_name"])
    host = {"folders": files.folders(), "node_id": show.node_id or "", "threads": torch.get_num_threads()}
    async with turn():
        try:
            return await _attempt(spec, inputs, host, show)
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            logging.warning("%s: %s. Unloading all models and trying once more.", show.title, error)
            show.status("memory ran out: unloading all models and trying once more")
        # Outside of the handler, whose traceback keeps what the failed attempt held.
        models.release_all()
        memory.free_all()
        gc.collect()
        return await _attempt(spec, inputs, host, show)


def _is_out_of_memory(error: Exception) -> bool:
    """The library's, torch's on the GPU, and torch's on the CPU, which has no class of its own."""
    if isinstance(error, VocableError):
        return error.kind is ErrorKind.OUT_OF_MEMORY
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


async def _attempt(spec: Spec, inputs: dict[str, Any], host: dict[str, Any], show: Show) -> io.NodeOutput:
    kinds = {entry["name"]: entry["type"] for entry in spec["inputs"]}
    values: dict[str, Value] = {}
    for name, value in inputs.items():
        if name not in kinds:
            continue
        if value is None and kinds[name] in MODEL_KINDS:
            help = f"Link a {kinds[name]} of another loader: a file may hold the denoiser alone."
            raise VocableError(ErrorKind.INVALID_INPUT, f"input `{name}`: the checkpoint that is linked has no {kinds[name]}", help)
        if value is None:
            continue
        if kinds[name] in MODEL_KINDS:
            values[name] = await models.handle(kinds[name], value, show, host)
        else:
            values[name] = convert.to_value(value, kinds[name])
    job = Job.start(spec["id"], Value.map(values.items()), host)
    values.clear()
    results, ui = await finish(job, show)
    if ui and ui.get("text"):
        show.status("\n".join(ui["text"]))
    return io.NodeOutput(*convert.outputs(spec, list(results)), ui=ui)
