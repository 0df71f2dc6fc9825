"""The example workflow that the pack ships: as it would be written now, and it runs."""

from __future__ import annotations

import json

from bench import editor
from bench.graphs import CHECKPOINT
from bench.main import PACK, Bench

FILE = PACK / "example_workflows" / "learn_and_paint.json"


async def check(bench: Bench) -> None:
    """See above."""
    infos = await bench.client.get("/object_info")
    wanted = json.dumps(editor.to_editor(editor.example(), infos, editor.PLACES), indent=1) + "\n"
    if bench.options.write:
        FILE.write_text(wanted, encoding="utf-8")
    shipped = FILE.read_text(encoding="utf-8")
    bench.expect(shipped == wanted, "the example workflow is as it would be written now (else: --write)")
    graph = editor.to_api(json.loads(shipped), infos)
    graph["1"]["inputs"]["ckpt_name"] = CHECKPOINT
    graph["2"]["inputs"] |= {"folder": "shapes", "resolution": 64}
    graph["3"]["inputs"] |= {"steps": 2, "batch_size": 1, "preview_count": 1, "preview_steps": 2}
    graph["8"]["inputs"] |= {"width": 64, "height": 64}
    graph["9"]["inputs"]["steps"] = 2
    run = await bench.client.run(graph)
    bench.expect(run.ok and len(run.ui("11", "images")) == 1, f"it runs, with a small model's sizes: {run.seconds:.0f} s {run.error()[:300]}")
