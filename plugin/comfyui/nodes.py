"""ComfyUI's node classes, made from the specs. Nothing about a node is said here: inputs, texts and limits are the library's own."""

from __future__ import annotations

import inspect
from typing import Any

from comfy_api.latest import ComfyExtension, io

from . import files, library, specs
from .specs import Spec

# Texts whose form the library looks at before a graph runs. Inputs that are not named here, nor accept paths, keep ComfyUI's own checks of
# ranges and choices; ComfyUI tells a problem once for each input that is named.
CHECKED_TEXTS = ("placeholder", "filename")

_HIDDEN = {"PROMPT": io.Hidden.prompt, "EXTRA_PNGINFO": io.Hidden.extra_pnginfo}


class Extension(ComfyExtension):
    """The pack, as ComfyUI loads it."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """All nodes; if there is no library, the one that explains it."""
        try:
            library.find()
        except library.LibraryMissing as missing:
            return [explaining_node(str(missing))]
        return [node_class(spec) for spec in specs.load()]


def node_class(spec: Spec) -> type[io.ComfyNode]:
    """The class of one node."""

    def define_schema(cls: type) -> io.Schema:
        return schema(spec)

    async def execute(cls: type, **inputs: Any) -> io.NodeOutput:
        from .running import run

        return await run(spec, inputs)

    def fingerprint_inputs(cls: type, **inputs: Any) -> str:
        from .checks import fingerprint

        return fingerprint(spec, inputs)

    def validate_inputs(cls: type, **inputs: Any) -> bool | str:
        from .checks import validate

        return validate(spec, inputs)

    members = [define_schema, execute, fingerprint_inputs]
    checked = checked_inputs(spec)
    if checked:
        # ComfyUI reads from the signature which inputs it leaves to this function.
        parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in checked]
        positional = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ["cls"]]
        positional += [parameter.replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD) for parameter in parameters]
        validate_inputs.__signature__ = inspect.Signature(positional)  # type: ignore[attr-defined]
        members.append(validate_inputs)
    namespace: dict[str, Any] = {member.__name__: classmethod(member) for member in members}
    namespace["__doc__"] = spec["description"]
    namespace["__module__"] = __name__
    return type(spec["id"], (io.ComfyNode,), namespace)


def schema(spec: Spec) -> io.Schema:
    """ComfyUI's description of a node."""
    visible = [entry for entry in spec["inputs"] if entry["presence"] != "hidden"]
    hidden = [_HIDDEN[entry["type"]] for entry in spec["inputs"] if entry["presence"] == "hidden" and entry["type"] in _HIDDEN]
    return io.Schema(
        node_id=spec["id"],
        display_name=spec["display_name"],
        category=spec["category"],
        description=spec["description"],
        inputs=[schema_input(entry) for entry in visible],
        outputs=[_output(entry) for entry in spec["outputs"]],
        hidden=hidden,
        search_aliases=list(spec["search_aliases"]),
        is_input_list=spec["input_is_list"],
        is_output_node=spec["output_node"],
        is_deprecated=spec["deprecated"],
        is_experimental=spec["experimental"],
    )


def schema_input(entry: Spec) -> io.Input:
    """One input."""
    kind = entry["type"]
    common: dict[str, Any] = {
        "optional": entry["presence"] == "optional",
        "tooltip": entry["tooltip"] or None,
        "advanced": entry["advanced"] or None,
    }
    widget = common | {"default": entry["default"], "force_input": entry["force_input"] or None}
    limits = {key: entry[key] for key in ("min", "max", "step")}
    # ComfyUI's own choice draws a new seed for every run, and so every run would learn anew.
    control = {"control_after_generate": io.ControlAfterGenerate.fixed if entry["control_after_generate"] else None}
    if kind == "INT":
        return io.Int.Input(entry["name"], **widget, **limits, **control)
    if kind == "FLOAT":
        return io.Float.Input(entry["name"], **widget, **limits, round=entry["round"])
    if kind == "STRING":
        texts = {"multiline": entry["multiline"] or None, "dynamic_prompts": entry["dynamic_prompts"] or None}
        return io.String.Input(entry["name"], **widget, **texts)
    if kind == "BOOLEAN":
        return io.Boolean.Input(entry["name"], **widget)
    if kind == "COMBO":
        return io.Combo.Input(entry["name"], options=options(entry), default=entry["default"], **common, **control)
    return io.Custom(kind).Input(entry["name"], **common)


def options(entry: Spec) -> list[str]:
    """What a list of choices offers now."""
    given = entry["choices"]
    return list(given["fixed"]) if "fixed" in given else files.choices(given["files"])


def checked_inputs(spec: Spec) -> list[str]:
    """The inputs whose values the pack looks at itself before a graph runs."""
    return [entry["name"] for entry in spec["inputs"] if entry["name"] in CHECKED_TEXTS or accepts_paths(entry)]


def accepts_paths(entry: Spec) -> bool:
    """Whether an input takes the path of a file that is not in its list."""
    return bool(((entry.get("choices") or {}).get("files") or {}).get("accepts_paths"))


def _output(entry: Spec) -> io.Output:
    return io.Custom(entry["type"]).Output(entry["name"], entry["name"], entry["tooltip"] or None, entry["is_list"])


def explaining_node(text: str) -> type[io.ComfyNode]:
    """The only node of a pack without its library."""

    class VocableLibraryMissing(io.ComfyNode):
        """Says what is missing and what to do."""

        @classmethod
        def define_schema(cls) -> io.Schema:
            return io.Schema(
                node_id="VocableLibraryMissing",
                display_name="Vocable: library missing",
                category="textual inversion",
                description=text,
                search_aliases=["vocable", "textual inversion"],
                is_output_node=True,
            )

        @classmethod
        def execute(cls) -> io.NodeOutput:
            raise library.LibraryMissing(text)

    return VocableLibraryMissing
