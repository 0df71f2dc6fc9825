"""Encode Prompt with Embeddings gives what core's CLIP Text Encode gives."""

from __future__ import annotations

from bench import graphs
from bench.graphs import Graph, node
from bench.main import Bench

# Of the largest value: hidden states before the last norm, which SDXL takes, are large, and f32 has seven digits.
CLOSE = 1e-5

LONG = ", ".join(["a photograph of an astronaut riding a horse on the moon", "oil on canvas", "(very detailed:1.1)", "soft light"] * 8)
PROMPTS = {
    "empty": "",
    "plain": "a photo of a cat on a red background",
    "weights": "a (photo:1.3) of a ((cat)) with \\(hat\\), (a dog:0.6)",
    "three chunks": LONG,
}


async def check(bench: Bench) -> None:
    """See above."""
    await compare(bench, "SD1.5", graphs.loader(), ["1", 1])
    skipped = graphs.loader() | {"2": node("CLIPSetLastLayer", clip=["1", 1], stop_at_clip_layer=-2)}
    await compare(bench, "SD1.5, CLIP Set Last Layer -2", skipped, ["2", 0], ["weights"])
    folder = bench.make("sdxl-clip", bench.models / "sdxl-clip")
    names = [bench.offer("text_encoders", folder / f"random_clip_{encoder}.safetensors") for encoder in ("l", "g")]
    dual = {"1": node("DualCLIPLoader", clip_name1=names[0], clip_name2=names[1], type="sdxl")}
    await compare(bench, "SDXL, by Dual CLIP Loader", dual, ["1", 0])
    await bench.client.post("/free", {"unload_models": True, "free_memory": True})


async def compare(bench: Bench, what: str, loader: Graph, clip: list, prompts: list[str] | None = None) -> None:
    """Encodes the prompts with both nodes."""
    graph = dict(loader)
    for number, (name, text) in enumerate(PROMPTS.items()):
        if prompts and name not in prompts:
            continue
        graph[f"a{number}"] = node("VocableEncodePromptWithEmbeddings", text=text, clip=clip)
        graph[f"b{number}"] = node("CLIPTextEncode", text=text, clip=clip)
        graph[f"c{number}"] = node("ProbeCompare", a=[f"a{number}", 0], b=[f"b{number}", 0])
    run = await bench.client.run(graph)
    if not run.ok:
        bench.expect(False, f"{what}: {run.error()[:600]}")
        return
    for number, name in enumerate(PROMPTS):
        if f"c{number}" in graph:
            lines = run.ui(f"c{number}")
            worst = max(float(line.split()[-2]) for line in lines)
            cond = lines[0].rsplit(" ", 2)[0]
            scale = max(float(line.split()[-1]) for line in lines)
            close = worst < CLOSE * max(scale, 1.0)
            bench.expect(close, f"{what}, {name}: {cond} and pooled within {worst:.1e} of core's, whose largest value is {scale:.2f}")
