"""Graphs as the editor keeps them, and back.

The editor's format has places, sizes, and the values of widgets in their order; a graph to be queued has inputs by name. What a node's
widgets are is told by ComfyUI's /object_info.
"""

from __future__ import annotations

from typing import Any

from . import graphs
from .graphs import Graph, node

Info = dict[str, Any]
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")

# Where the nodes of the example stand: column, row in pixels, width, height.
PLACES = {
    "1": (0, 0, 320, 100), "2": (0, 160, 320, 480), "7": (0, 700, 320, 110), "8": (0, 870, 320, 110),
    "3": (380, 0, 400, 980), "4": (840, 0, 380, 170), "5": (840, 240, 380, 330), "6": (840, 640, 380, 240),
    "9": (1280, 0, 360, 270), "10": (1280, 330, 360, 50), "11": (1280, 440, 360, 440),
}  # fmt: skip


def inputs(info: Info) -> list[tuple[str, Any, dict[str, Any]]]:
    """Name, type and options of each input, in order."""
    found = []
    for group in ("required", "optional"):
        for name, (kind, *options) in info["input"].get(group, {}).items():
            found.append((name, "COMBO" if isinstance(kind, list) else kind, options[0] if options else {}))
    return found


def is_widget(kind: str, options: dict[str, Any]) -> bool:
    """Whether the editor shows a field for it."""
    return kind in WIDGETS and not options.get("forceInput")


def default(kind: str, options: dict[str, Any], info_kind: Any = None) -> Any:
    """What a field starts with."""
    if "default" in options:
        return options["default"]
    if kind == "COMBO":
        choices = options.get("options") or (info_kind if isinstance(info_kind, list) else [])
        return choices[0] if choices else None
    return {"INT": 0, "FLOAT": 0.0, "STRING": "", "BOOLEAN": False}[kind]


def has_control(name: str, kind: str, options: dict[str, Any]) -> bool:
    """Whether the editor puts "control after generate" behind the field."""
    return kind == "INT" and bool(options.get("control_after_generate") or name in ("seed", "noise_seed"))


def to_editor(
    graph: Graph, infos: dict[str, Info], places: dict[str, tuple[int, int, int, int]], titles: dict[str, str] | None = None
) -> dict[str, Any]:
    """A graph for the editor."""
    links: list[list[Any]] = []
    nodes: dict[str, dict[str, Any]] = {}
    for order, (key, item) in enumerate(graph.items()):
        info = infos[item["class_type"]]
        x, y, width, height = places[key]
        values: list[Any] = []
        sockets = []
        for name, kind, options in inputs(info):
            given = item["inputs"].get(name)
            if is_widget(kind, options):
                values.append(default(kind, options) if given is None else given)
                values += ["fixed"] if has_control(name, kind, options) else []
            else:
                sockets.append({"name": name, "type": kind, "link": None})
        outputs = [
            {"name": name, "type": kind, "links": [], "slot_index": slot}
            for slot, (name, kind) in enumerate(zip(info["output_name"], info["output"]))
        ]
        nodes[key] = {
            "id": int(key), "type": item["class_type"], "pos": [x, y], "size": [width, height], "flags": {}, "order": order, "mode": 0,
            "inputs": sockets, "outputs": outputs, "properties": {"Node name for S&R": item["class_type"]}, "widgets_values": values,
        }  # fmt: skip
        if titles and key in titles:
            nodes[key]["title"] = titles[key]
    for key, item in graph.items():
        for slot, socket in enumerate(nodes[key]["inputs"]):
            given = item["inputs"].get(socket["name"])
            if isinstance(given, list):
                source, output = nodes[given[0]], given[1]
                number = len(links) + 1
                links.append([number, source["id"], output, int(key), slot, socket["type"]])
                socket["link"] = number
                source["outputs"][output]["links"].append(number)
    return {
        "id": "4b1f8d3e-6a53-4a0e-9d55-0c1d7f0a2b11", "revision": 0, "last_node_id": max(map(int, graph)), "last_link_id": len(links),
        "nodes": list(nodes.values()), "links": links, "groups": [], "config": {}, "extra": {}, "version": 0.4,
    }  # fmt: skip


def to_api(workflow: dict[str, Any], infos: dict[str, Info]) -> Graph:
    """What the editor queues for a graph."""
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    graph: Graph = {}
    for item in workflow["nodes"]:
        values = iter(item["widgets_values"])
        given: dict[str, Any] = {}
        for name, kind, options in inputs(infos[item["type"]]):
            if is_widget(kind, options):
                given[name] = next(values)
                if has_control(name, kind, options):
                    next(values)
        given |= {socket["name"]: links[socket["link"]] for socket in item["inputs"] if socket["link"] is not None}
        graph[str(item["id"])] = node(item["type"], **given)
    return graph


def example() -> Graph:
    """The pack's example: learn a word, save it, and paint with it."""
    graph = graphs.loader() | graphs.concept("my-pictures", 512)
    graph["1"]["inputs"]["ckpt_name"] = "v1-5-pruned-emaonly-fp16.safetensors"
    graph["7"] = node("CLIPTextEncode", text="blurry, text, watermark", clip=["1", 1])
    graph["8"] = node("EmptyLatentImage", width=512, height=512, batch_size=1)
    links = {"model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2], "concept": ["2", 0]}
    own = {"placeholder": "<my-cat>", "init_words": "cat", "preset": "recommended", "seed": 0, "preview_prompt": "a photo of {}"}
    graph["3"] = node("VocableTrainTextualInversion", **links, **own)
    graph["4"] = node("VocableSaveEmbedding", embedding=["3", 0], filename="my-cat")
    graph["5"] = node("LossGraphNode", loss=["3", 1], filename_prefix="loss_graph")
    graph |= graphs.encode("a photo of a <my-cat> on a red sofa", ["3", 0])
    painted = graphs.paint(["6", 0], steps=20, prefix="my-cat")
    graph |= {key: painted[key] for key in ("9", "10", "11")}
    graph["9"]["inputs"] |= {"cfg": 7.0, "sampler_name": "dpmpp_2m", "scheduler": "karras"}
    return graph
