"""Vocable for ComfyUI: teach a frozen model a new word from a handful of pictures, inside the graph.

This file loads neither the library nor torch: ComfyUI starts as fast with the pack as without it.
"""

from __future__ import annotations

from typing import Any

WEB_DIRECTORY = "./web"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]


async def comfy_entrypoint() -> Any:
    """Called by ComfyUI, which gets the pack's nodes here."""
    from .nodes import Extension

    return Extension()
