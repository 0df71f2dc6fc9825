"""The real editor, in a headless Chromium: the example workflow is loaded, queued, and its nodes show what they should."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from bench import editor
from bench.graphs import CHECKPOINT
from bench.main import HERE, Bench
from checks.example import FILE


async def check(bench: Bench) -> None:
    """See above."""
    python = os.environ.get("BROWSER_PYTHON", bench.python)
    probe = await asyncio.create_subprocess_exec(python, "-c", "import playwright", stderr=asyncio.subprocess.DEVNULL)
    if await probe.wait():
        bench.report.skip("the editor: there is no playwright; install it, or name a Python that has it in BROWSER_PYTHON")
        return
    wanted = editor.example()
    # What the example names is there, as with a user who has it; only sizes are changed.
    checkpoints = bench.home / "models" / "checkpoints"
    links = [(checkpoints, wanted["1"]["inputs"]["ckpt_name"], CHECKPOINT), (bench.home / "input", wanted["2"]["inputs"]["folder"], "shapes")]
    for folder, name, target in links:
        if not (folder / name).exists():
            (folder / name).symlink_to(folder / target)
    settings = {
        "2": {"resolution": 64},
        "3": {"steps": 8, "batch_size": 1, "preview_count": 2, "preview_steps": 3, "preview_interval": 2, "seed": 77},
        "8": {"width": 128, "height": 128}, "9": {"steps": 3},
    }  # fmt: skip
    file = bench.home / "settings.json"
    file.write_text(json.dumps(settings))
    shots = Path(os.environ.get("SCREENSHOTS", bench.home / "screenshots"))
    command = [python, str(HERE / "browser" / "editor.py"), bench.server.address, FILE.stem, str(file), str(shots)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    output, errors = await process.communicate()
    if not bench.expect(process.returncode == 0, f"the browser ran {errors.decode()[-1500:] if process.returncode else ''}"):
        return
    seen = json.loads(output)
    infos = await bench.client.get("/object_info")
    workflow = json.loads(FILE.read_text(encoding="utf-8"))
    wanted = editor.to_api(workflow, infos)
    loaded = {node["id"]: node for node in seen["loaded"]}
    types = {key: node["class_type"] for key, node in wanted.items()}
    bench.expect({key: node["type"] for key, node in loaded.items()} == types, f"all {len(wanted)} nodes are there")
    bench.expect(seen["links"] == len(workflow["links"]), f"all {seen['links']} links are there")
    for key, node in wanted.items():
        given = {name: value for name, value in node["inputs"].items() if not isinstance(value, list)}
        linked = {name for name, value in node["inputs"].items() if isinstance(value, list)}
        found = {name: loaded[key]["widgets"].get(name) for name in given}
        line = f"{node['class_type']}: {len(given)} fields and {len(linked)} links"
        bench.expect(found == given and linked <= set(loaded[key]["inputs"]), line if found == given else f"{line}: {found}, wanted {given}")
    texts = [text for moment in seen["during"] for text in moment["texts"]]
    progress = [moment["progress"] for moment in seen["during"] if moment["progress"]]
    bench.expect(any("loss" in text for text in texts), f"the training node shows the loss: {[text for text in texts if 'loss' in text][-1:]}")
    bench.expect(len(set(progress)) > 2, f"its bar moves: {len(set(progress))} positions up to {max(progress, default=0):.0%}")
    bench.expect(any(moment["pictures"] for moment in seen["during"]), "and preview pictures")
    done = {node["id"]: node for node in seen["done"]}
    bench.expect(seen["ended"][-1:] == ["execution_success"] and done["11"]["pictures"] == 1, f"the result is on Save Image ({seen['ended'][-1:]})")
    bench.report.note(f"screenshots in {shots}: {', '.join(seen['screenshots'])}; errors on the console: {seen['console'][:5]}")
