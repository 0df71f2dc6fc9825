"""Pictures of every kind, from every kind of node."""

from __future__ import annotations

from bench import graphs, pictures
from bench.graphs import node
from bench.main import Bench


async def check(bench: Bench) -> None:
    """See above."""
    client = bench.client
    graph = graphs.concept(crop="none", side_multiple=32) | {"12": node("PreviewImage", images=["2", 1])}
    graph["1"] = node("ProbeImages", seed=1)
    graph["2"]["inputs"] |= {"images": ["1", 0], "captions": ["1", 1], "masks": ["1", 2]}
    run = await client.run(graph)
    said = "\n".join(run.ui("2"))
    line = "half, strided, alpha, bf16 batch, and without a batch; five sizes, six captions"
    bench.expect(run.ok and "6 training pictures" in said, f"IMAGE of every kind feeds a concept ({line}): {said or run.error()[:300]}")
    folder = bench.home / "input" / "captioned"
    for number in range(2):
        pictures.shape(folder / f"{number}.png", number, side=80 + 16 * number)
        (folder / f"{number}.txt").write_text(f"a shape number {number}")
    dataset = {"1": node("LoadImageTextDataSetFromFolder", folder="captioned")} | graphs.concept() | {"12": node("PreviewImage", images=["2", 1])}
    dataset["2"]["inputs"] |= {"images": ["1", 0], "captions": ["1", 1]}
    run = await client.run(dataset)
    bench.expect(run.ok and "2 training pictures" in "\n".join(run.ui("2")), f"core's dataset node with captions feeds a concept {run.error()[:300]}")
    loaded = {"1": node("LoadImage", image="shapes/0.png")} | graphs.concept(mask_means="transparent") | {"12": node("PreviewImage", images=["2", 1])}
    loaded["2"]["inputs"] |= {"images": ["1", 0], "masks": ["1", 1]}
    run = await client.run(loaded)
    bench.expect(run.ok, f"Load Image with its mask feeds a concept {run.error()[:300]}")
