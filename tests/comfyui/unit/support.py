"""What several tests need."""

from __future__ import annotations

from typing import Any

from comfyui import native, specs

from . import PACK

__all__ = ["PACK", "library_nodes", "native", "shipped"]


def library_nodes() -> list[dict[str, Any]]:
    """The specs that the library tells of."""
    return specs.ours(native.nodes())


def shipped() -> list[dict[str, Any]]:
    """The specs that the pack ships."""
    return specs.load()
