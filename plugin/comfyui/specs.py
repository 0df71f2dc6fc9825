"""What the nodes are: the library's own specs, shipped as `specs.json` so that listing them needs no library."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("specs.json")

# The library has nodes of ComfyUI's ids, too, for hosts that lack them. ComfyUI keeps its own.
PREFIX = "Vocable"

Spec = dict[str, Any]


def ours(nodes: list[Spec]) -> list[Spec]:
    """The nodes that ComfyUI does not have, in the order of their ids."""
    return sorted((node for node in nodes if node["id"].startswith(PREFIX)), key=lambda node: node["id"])


def dump(nodes: list[Spec]) -> str:
    """The text of `specs.json`."""
    return json.dumps(nodes, indent=1, ensure_ascii=False) + "\n"


@functools.cache
def load() -> list[Spec]:
    """The specs that are shipped."""
    return json.loads(FILE.read_text(encoding="utf-8"))
