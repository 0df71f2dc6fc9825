"""What ComfyUI asks before a graph runs: are the literal inputs usable, and has anything on disk changed?"""

from __future__ import annotations

import time
from typing import Any

from . import files, native
from .native import Value, VocableError
from .specs import Spec


def validate(spec: Spec, inputs: dict[str, Any]) -> bool | str:
    """True, or what is wrong with a literal input. Linked ones come as None, and ComfyUI leaves out those that it checks itself."""
    literals = {name: value for name, value in _unlisted(spec, inputs).items() if value is not None}
    others = [entry["name"] for entry in spec["inputs"] if entry["name"] not in literals]
    try:
        native.validate(spec["id"], Value.json(literals), {"folders": files.folders(), "linked": others})
    except VocableError as error:
        return str(error)
    return True


def fingerprint(spec: Spec, inputs: dict[str, Any]) -> str:
    """Text that changes when the node must run again although its inputs are the same."""
    known = _unlisted(spec, inputs)
    literals = {name: value for name, value in known.items() if value is not None}
    linked = [name for name, value in known.items() if value is None]
    try:
        return native.fingerprint(spec["id"], Value.json(literals), {"folders": files.folders(), "linked": linked})
    except VocableError as error:
        # The node itself will say it, in its place in the graph; until then nothing is known, and no old result may stand for it.
        return f"{time.time_ns()}: {error}"


def _unlisted(spec: Spec, inputs: dict[str, Any]) -> dict[str, Any]:
    """A node that takes lists gets each literal in one."""
    return {name: values[0] for name, values in inputs.items() if values} if spec["input_is_list"] else inputs
