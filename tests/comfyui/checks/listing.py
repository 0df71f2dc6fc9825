"""What ComfyUI lists is what the library says of its nodes."""

from __future__ import annotations

from typing import Any

from bench.main import PACK, Bench
from unit.support import library_nodes, shipped

FOLDED = {"multiline": "multiline", "dynamic_prompts": "dynamicPrompts", "advanced": "advanced", "force_input": "forceInput"}


async def check(bench: Bench) -> None:
    """See above."""
    listed = {name: info for name, info in (await bench.client.get("/object_info")).items() if name.startswith("Vocable")}
    specs = {spec["id"]: spec for spec in library_nodes()}
    bench.expect(list(specs.values()) == shipped(), f"specs.json is what the library says ({len(specs)} nodes)")
    bench.expect(listed.keys() == specs.keys(), f"/object_info has these nodes and no other: {', '.join(sorted(listed))}")
    for name, spec in specs.items():
        differences = list(compare(spec, listed.get(name, {})))
        bench.expect(not differences, f"/object_info of {name}: {len(spec['inputs'])} inputs, {len(spec['outputs'])} outputs equal {differences}")
    docs = [(await bench.client.http.get(f"/extensions/vocable/docs/{name}.md")).status for name in specs]
    bench.expect(set(docs) == {200}, "the editor gets a help page for each node")
    examples = await bench.client.get("/workflow_templates")
    wanted = sorted(path.stem for path in (PACK / "example_workflows").glob("*.json"))
    bench.expect(sorted(examples.get("vocable", [])) == wanted and bool(wanted), f"the editor's templates list {wanted}")
    translations = await bench.client.get("/i18n")
    bench.expect(specs.keys() <= translations.get("en", {}).get("nodeDefs", {}).keys(), "the editor gets the English texts")


def compare(spec: dict[str, Any], info: dict[str, Any]) -> Any:
    """All places where the two differ."""
    plain = {
        "name": "id", "display_name": "display_name", "description": "description", "category": "category", "output_node": "output_node",
        "is_input_list": "input_is_list", "deprecated": "deprecated", "experimental": "experimental",
    }  # fmt: skip
    pairs = [(theirs, info.get(theirs), spec[own]) for theirs, own in plain.items()]
    pairs.append(("search_aliases", info.get("search_aliases") or [], spec["search_aliases"]))
    for theirs, own in {"output": "type", "output_name": "name", "output_tooltips": "tooltip", "output_is_list": "is_list"}.items():
        pairs.append((theirs, info.get(theirs), [output[own] for output in spec["outputs"]]))
    visible = [entry for entry in spec["inputs"] if entry["presence"] != "hidden"]
    for presence in ("required", "optional"):
        order = [entry["name"] for entry in visible if entry["presence"] == presence]
        pairs.append((presence, list(info.get("input", {}).get(presence, {})), order))
        for entry in visible:
            if entry["presence"] == presence:
                found = info.get("input", {}).get(presence, {}).get(entry["name"], [None, {}])
                pairs += [(f"{entry['name']}.{what}", *both) for what, *both in compare_input(entry, *found)]
    return (f"{what}: listed {one!r}, spec {other!r}" for what, one, other in pairs if one != other)


def compare_input(entry: dict[str, Any], kind: Any, options: dict[str, Any]) -> Any:
    """What is listed of an input, and what the spec says."""
    yield "type", kind, entry["type"]
    for key in ("default", "min", "max", "step", "round"):
        yield key, options.get(key), entry[key]
    yield "tooltip", options.get("tooltip", ""), entry["tooltip"]
    yield "control_after_generate", bool(options.get("control_after_generate")), entry["control_after_generate"]
    for own, theirs in FOLDED.items():
        yield own, bool(options.get(theirs)), entry[own]
    if (entry["choices"] or {}).get("fixed"):
        yield "options", options.get("options"), entry["choices"]["fixed"]
