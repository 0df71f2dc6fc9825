"""One graph learns, saves, encodes, paints and draws; what is seen on the way."""

from __future__ import annotations

import re

from bench import graphs
from bench.graphs import node
from bench.main import Bench


async def check(bench: Bench) -> None:
    """See above."""
    client = bench.client
    run = await client.run(graphs.whole())
    bench.expect(run.ok, f"learn → save → encode → KSampler → SaveImage in one graph, {run.seconds:.0f} s {run.error()[:500]}")
    bench.expect(len(run.ui("11", "images")) == 1, "SaveImage has a picture")
    bench.expect(len(run.ui("5", "images")) == 1, "Plot Loss Graph drew the LOSS_MAP")
    saved = bench.home / "models" / "embeddings" / "shape.safetensors"
    bench.expect(saved.is_file() and "shape" in await client.get("/embeddings"), "the word lies in ComfyUI's embeddings folder, and ComfyUI lists it")
    _events(bench, run)
    graph = graphs.loader() | graphs.encode("a photo of (embedding:shape:1.3) and more")
    graph["7"] = node("CLIPTextEncode", text="a photo of (embedding:shape:1.3) and more", clip=["1", 1])
    graph["8"] = node("CLIPTextEncode", text="a photo of (nothing:1.3) and more", clip=["1", 1])
    graph["9"], graph["10"] = node("ProbeCompare", a=["6", 0], b=["7", 0]), node("ProbeCompare", a=["8", 0], b=["7", 0])
    compared = await client.run(graph)
    ours, other = (float(compared.ui(number)[0].split()[-2]) if compared.ok else float("inf") for number in ("9", "10"))
    line = f"{ours:.1e} from ours, {other:.1e} without it {compared.error()[:300]}"
    bench.expect(ours < 1e-5 < other, f"embedding:shape in core's CLIPTextEncode finds the word: {line}")


def _events(bench: Bench, run) -> None:
    ends = ("execution_success", "execution_error")
    kinds = [event.kind for event in run.events if event.kind in ("execution_start", "execution_cached", *ends)]
    bench.expect(kinds[0] == "execution_start" and kinds[-1] == "execution_success", f"the run starts and ends as every other: {kinds}")
    values = [event.data["nodes"]["3"] for event in run.of("progress_state") if "3" in event.data["nodes"]]
    running = [(state["value"], state["max"]) for state in values if state["state"] == "running"]
    steps = [value for value, most in running if most == 4]
    bench.expect(steps == sorted(steps) and bool(steps) and max(steps) == 4, f"the bar of the training node goes up: {steps}")
    lines = run.texts("3")
    trained = [line for line in lines if re.search(r"step \d+.*loss", line)]
    bench.expect(bool(trained), f"the line of text has step and loss: {trained[-1:]}")
    previews = run.of("preview")
    bench.expect(
        len(previews) >= 2 and all(event.data["node"] == "3" for event in previews[:2]), f"{len(previews)} preview pictures on the training node"
    )
    jpeg = all(event.data["bytes"][:2] == b"\xff\xd8" for event in previews if event.data["node"] == "3")
    ended = [event.at for event in run.of("executed") if event.data["node"] == "3"]
    during = [event.at for event in previews if event.data["node"] == "3"]
    bench.expect(jpeg and bool(ended) and bool(during) and max(during) < ended[0], "previews are JPEG and come before the node's result")
    order = [event.data["node"] for event in run.of("executed")]
    bench.expect(order.index("3") < order.index("4") and order.index("3") < order.index("11"), f"results come in the graph's order: {order}")
