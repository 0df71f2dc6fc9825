"""The same workflow gives the same picture in ComfyUI and in `vocable run`."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from bench import graphs, pictures
from bench.main import ROOT, Bench


async def check(bench: Bench) -> None:
    """See above."""
    program = Path(os.environ.get("VOCABLE", ROOT / "target" / "release" / "vocable"))
    if not program.is_file():
        bench.report.skip(f"the same picture in `vocable run`: there is no {program}; build it, or name it in VOCABLE")
        return
    for name, graph in [("painting", painting()), ("learning and painting", learning())]:
        run = await bench.client.run(graph)
        bench.expect(run.ok, f"{name} in ComfyUI, {run.seconds:.0f} s {run.error()[:300]}")
        await bench.client.post("/free", {"unload_models": True, "free_memory": True})
        file = bench.home / f"{name}.json"
        file.write_text(json.dumps(graph))
        output = bench.home / f"vocable {name}"
        command = [
            str(program),
            "run",
            str(file),
            "--models",
            str(bench.home / "models"),
            "--input",
            str(bench.home / "input"),
            "--output",
            str(output),
            "-q",
        ]
        if "VOCABLE_LIBRARY" in os.environ:
            command += ["--plugin", os.environ["VOCABLE_LIBRARY"]]
        done = subprocess.run(command, capture_output=True, text=True)
        found = sorted(output.glob("same_*.png"))
        if not bench.expect(done.returncode == 0 and bool(found), f"{name} in `vocable run` {done.stderr[-500:] if done.returncode else ''}"):
            continue
        image = run.ui("11", "images")[0]
        most, mean = pictures.difference(bench.home / "output" / image["subfolder"] / image["filename"], found[-1])
        bench.expect(most <= 1, f"{name}: the pictures differ by {most:.0f}/255 at most, {mean:.4f}/255 in the mean")


def painting() -> graphs.Graph:
    """Without learning."""
    return graphs.loader() | graphs.encode("a photo of a (cat:1.2)") | graphs.paint(["6", 0], steps=3, prefix="same")


def learning() -> graphs.Graph:
    """With it."""
    graph = graphs.learn(seed=21, word="<same>") | graphs.encode("a photo of a <same>", ["3", 0])
    return graph | graphs.paint(["6", 0], steps=3, prefix="same")
