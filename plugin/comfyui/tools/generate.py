"""Writes what the pack says about its nodes, all of it from the library's own specs: `specs.json`, `web/docs/*.md`, `locales/en/nodeDefs.json`.

python plugin/comfyui/tools/generate.py            tells which files differ, and fails if one does
python plugin/comfyui/tools/generate.py --write    writes them
… --from-specs                                     does not ask the library, but starts from `specs.json`
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PACK = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PACK.parent))

from comfyui import native, specs  # noqa: E402  (the pack is a folder, not an installed package)

Spec = dict[str, Any]


def page(spec: Spec) -> str:
    """The help page of a node, which the editor shows."""
    lines = [f"# {spec['display_name']}", "", spec["description"], ""]
    inputs = [entry for entry in spec["inputs"] if entry["presence"] != "hidden"]
    groups = [("Inputs", [entry for entry in inputs if not entry["advanced"]]), ("Advanced inputs", [entry for entry in inputs if entry["advanced"]])]
    for title, members in groups:
        if members:
            lines += [f"## {title}", "", "| input | type | default | |", "|---|---|---|---|"]
            lines += [f"| `{entry['name']}` | {_type(entry)} | {_default(entry)} | {_cell(entry['tooltip'])} |" for entry in members]
            lines.append("")
    if spec["outputs"]:
        lines += ["## Outputs", "", "| output | type | |", "|---|---|---|"]
        lines += [f"| `{output['name']}` | {output['type']} | {_cell(output['tooltip'])} |" for output in spec["outputs"]]
        lines.append("")
    return "\n".join(lines)


def _type(entry: Spec) -> str:
    choices = entry["choices"] or {}
    if "fixed" in choices:
        text = ", ".join(f"`{choice}`" for choice in choices["fixed"])
    elif "files" in choices:
        text = f"one of the {choices['files']['kind']} files" + (", or a path" if choices["files"]["accepts_paths"] else "")
        if choices["files"]["extensions"] == ["/"]:
            text = f"a folder of the {choices['files']['kind']} folder, or a path"
    elif entry["min"] is not None and entry["max"] is not None:
        text = f"{entry['type']}, {entry['min']} to {entry['max']}"
    else:
        text = entry["type"]
    return _cell(text + (", optional" if entry["presence"] == "optional" and entry["default"] is None and not choices else ""))


def _default(entry: Spec) -> str:
    default = entry["default"]
    if default is None and (entry["choices"] or {}).get("fixed"):
        default = entry["choices"]["fixed"][0]
    return "" if default is None else _cell(f"`{json.dumps(default, ensure_ascii=False)}`" if default != "" else "empty")


def _cell(text: str) -> str:
    """In a table, on one line, and with `<word>` as text rather than as HTML."""
    text = text.replace("|", "\\|").replace("\n", " ")
    return text if "`" in text else text.replace("<", "&lt;")


def locale(nodes: list[Spec]) -> dict[str, Any]:
    """The editor's texts, which translations start from."""
    definitions = {}
    for spec in nodes:
        visible = [entry for entry in spec["inputs"] if entry["presence"] != "hidden"]
        definitions[spec["id"]] = {
            "display_name": spec["display_name"],
            "description": spec["description"],
            "inputs": {entry["name"]: {"name": entry["name"], "tooltip": entry["tooltip"]} for entry in visible},
            "outputs": {str(slot): {"name": output["name"], "tooltip": output["tooltip"]} for slot, output in enumerate(spec["outputs"])},
        }
    return definitions


def files(nodes: list[Spec]) -> dict[Path, str]:
    """All generated files."""
    made = {specs.FILE: specs.dump(nodes)}
    made |= {PACK / "web" / "docs" / f"{spec['id']}.md": page(spec) for spec in nodes}
    made[PACK / "locales" / "en" / "nodeDefs.json"] = json.dumps(locale(nodes), indent=1, ensure_ascii=False) + "\n"
    return made


def main(arguments: list[str]) -> int:
    """Writes or compares."""
    nodes = specs.load() if "--from-specs" in arguments else specs.ours(native.nodes())
    made = files(nodes)
    old = {path for path in (PACK / "web" / "docs").glob("*.md") if path not in made}
    differ = [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text] + sorted(old)
    for path in differ:
        print(path.relative_to(PACK))
        if "--write" in arguments:
            if path in old:
                path.unlink()
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(made[path], encoding="utf-8", newline="\n")
    return 1 if differ and "--write" not in arguments else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
