"""What goes wrong is told on the node, with what to do."""

from __future__ import annotations

import json
import struct

from bench import graphs
from bench.client import Refused
from bench.main import Bench


async def check(bench: Bench) -> None:
    """See above."""
    client = bench.client
    run = await client.run(graphs.loader() | graphs.encode("a photo of embedding:no_such_word") | graphs.paint(["6", 0]))
    failed = run.of("execution_error")
    node = failed[0].data["node_id"] if failed else None
    bench.expect(node == "6" and "no_such_word" in run.error(), f"a missing word: {run.error().strip()!r}")
    wide = bench.home / "models" / "embeddings" / "wide.safetensors"
    header = json.dumps({"emb_params": {"dtype": "F32", "shape": [1, 1024], "data_offsets": [0, 4096]}}).encode()
    wide.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4096)
    run = await client.run(graphs.loader() | graphs.encode("a photo of embedding:wide") | graphs.paint(["6", 0]))
    bench.expect("wide" in run.error() and "1024" in run.error() and "768" in run.error(), f"a word of another family: {run.error().strip()!r}")
    run = await client.run(graphs.learn(init_words="", word="<nothing>") | graphs.save("nothing"))
    bench.expect("init_words" in run.error() or "init" in run.error(), f"no word to start from: {run.error().strip()!r}")
    for name, graph in [
        ("a word that the model would split", graphs.learn(word="two words") | graphs.save()),
        ("a file name that prompts cannot spell", graphs.learn() | graphs.save("a/../b c")),
        ("a folder that is not there", graphs.loader() | graphs.concept(folder="no such folder") | graphs.train() | graphs.save()),
        ("a number that is too large", graphs.learn(vectors=76) | graphs.save()),
    ]:
        try:
            await client.queue(graph)
            bench.expect(False, f"{name} is refused before anything runs")
        except Refused as refused:
            errors = [problem for entry in refused.answer["node_errors"].values() for problem in entry["errors"]]
            told = "; ".join(f"{problem['message']}: {problem['details']}" for problem in errors)
            bench.expect(bool(errors), f"{name} is refused before anything runs: {told!r}")
