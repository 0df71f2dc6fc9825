"""Runs a node: inputs in, the job, results out."""

from __future__ import annotations

import gc
import logging
from typing import Any

import torch
from comfy_api.latest import io

from . import convert, files, memory, models
from .jobs import Show, finish
from .native import ErrorKind, Job, Value, VocableError
from .specs import Spec

MODEL_KINDS = ("MODEL", "CLIP", "VAE")


async def run(spec: Spec, inputs: dict[str, Any]) -> io.NodeOutput:
    """Runs a node. Where memory runs out, ComfyUI's models are unloaded and the node is tried once more."""
    show = Show(spec["display_name"])
    host = {"folders": files.folders(), "node_id": show.node_id or "", "threads": torch.get_num_threads()}
    try:
        return await _attempt(spec, inputs, host, show)
    except VocableError as error:
        if error.kind is not ErrorKind.OUT_OF_MEMORY:
            raise
        logging.warning("%s: %s. Unloading all models and trying once more.", show.title, error.message)
        show.status("memory ran out: unloading all models and trying once more")
    # Outside of the handler, whose traceback keeps what the failed attempt held.
    models.release_all()
    memory.free_all()
    gc.collect()
    return await _attempt(spec, inputs, host, show)


async def _attempt(spec: Spec, inputs: dict[str, Any], host: dict[str, Any], show: Show) -> io.NodeOutput:
    kinds = {entry["name"]: entry["type"] for entry in spec["inputs"]}
    values: dict[str, Value] = {}
    for name, value in inputs.items():
        if value is None or name not in kinds:
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
