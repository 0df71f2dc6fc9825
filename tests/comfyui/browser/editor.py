"""Loads a workflow in the real editor, queues it, and looks at what its nodes show.

    python editor.py ADDRESS TEMPLATE SETTINGS.json SCREENSHOTS

TEMPLATE is the name of one of the pack's templates; SETTINGS.json has values of fields by node id. Prints what was seen as JSON. Needs
playwright and a Chromium (CHROMIUM, else the one that is found).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

LOAD = """async (name) => {
    const answer = await fetch(`/api/workflow_templates/vocable/${name}.json`);
    await window.app.loadGraphData(await answer.json());
}"""
NODES = """() => window.app.graph.nodes.map(node => ({
    id: String(node.id), type: node.type, title: node.title, missing: !!node.has_errors,
    widgets: Object.fromEntries((node.widgets ?? []).map(widget => [widget.name, widget.value ?? null])),
    inputs: (node.inputs ?? []).filter(input => input.link != null).map(input => input.name),
    texts: (node.widgets ?? []).filter(widget => widget.name?.startsWith('$$')).map(widget => String(widget.value ?? '')),
    pictures: (node.imgs ?? []).length, progress: node.progress ?? null,
}))"""
LINKS = "() => window.app.graph.links.size ?? Object.keys(window.app.graph.links).length"
SET = """(settings) => {
    for (const [id, fields] of Object.entries(settings)) {
        const node = window.app.graph.getNodeById(Number(id));
        for (const [name, value] of Object.entries(fields)) {
            const widget = node.widgets.find(widget => widget.name === name);
            if (!widget) throw new Error(`node ${id} has no field ${name}`);
            widget.value = value;
        }
    }
    window.app.graph.setDirtyCanvas(true, true);
}"""
FIT = """() => {
    const bounds = window.app.graph.nodes.map(node => node.boundingRect ?? [...node.pos, ...node.size]);
    window.app.canvas.ds.fitToBounds?.([0, 0, 1, 1]);
    const [x, y] = [Math.min(...bounds.map(b => b[0])), Math.min(...bounds.map(b => b[1]))];
    const [right, bottom] = [Math.max(...bounds.map(b => b[0] + b[2])), Math.max(...bounds.map(b => b[1] + b[3]))];
    const scale = Math.min((window.innerWidth - 160) / (right - x), (window.innerHeight - 160) / (bottom - y));
    window.app.canvas.ds.scale = scale;
    window.app.canvas.ds.offset = [90 / scale - x, 90 / scale - y];
    window.app.canvas.setDirty(true, true);
}"""
LISTEN = """() => {
    window.seen = [];
    for (const kind of ['execution_start', 'progress_state', 'executed', 'execution_success', 'execution_error', 'execution_interrupted'])
        window.app.api.addEventListener(kind, event => window.seen.push([kind, event.detail]));
}"""
ENDED = "() => window.seen.some(([kind]) => ['execution_success', 'execution_error', 'execution_interrupted'].includes(kind))"


def look(page: Page, training: str) -> dict[str, Any]:
    """The node that trains."""
    return next(node for node in page.evaluate(NODES) if node["id"] == training)


def main(address: str, template: str, settings: dict[str, Any], shots: Path) -> dict[str, Any]:
    """See above."""
    seen: dict[str, Any] = {"console": []}
    shots.mkdir(parents=True, exist_ok=True)
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--use-gl=swiftshader"])
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.on("console", lambda message: seen["console"].append(message.text) if message.type == "error" else None)
        page.goto(f"http://{address}/", wait_until="domcontentloaded", timeout=120_000)
        page.wait_for_function("() => window.app?.graph && window.app?.api?.clientId", timeout=120_000)
        page.keyboard.press("Escape")
        page.evaluate(LOAD, template)
        page.wait_for_timeout(1500)
        page.keyboard.press("Escape")
        page.evaluate(FIT)
        page.wait_for_timeout(500)
        seen["loaded"], seen["links"] = page.evaluate(NODES), page.evaluate(LINKS)
        page.screenshot(path=shots / "1-loaded.png")
        page.evaluate(SET, settings)
        page.evaluate(LISTEN)
        button = page.get_by_test_id("queue-button")
        button.get_by_role("button").first.click() if button.get_by_role("button").count() else button.first.click()
        training = next(node["id"] for node in seen["loaded"] if node["type"] == "VocableTrainTextualInversion")
        seen["during"] = []
        deadline = time.monotonic() + 400
        shot = False
        while not page.evaluate(ENDED) and time.monotonic() < deadline:
            node = look(page, training)
            seen["during"].append({key: node[key] for key in ("texts", "pictures", "progress")})
            if not shot and node["pictures"] and any("loss" in text for text in node["texts"]):
                page.screenshot(path=shots / "2-training.png")
                shot = True
            page.wait_for_timeout(300)
        page.wait_for_timeout(2500)
        page.screenshot(path=shots / "3-done.png")
        seen["done"] = page.evaluate(NODES)
        seen["ended"] = page.evaluate("() => window.seen.filter(([kind]) => kind !== 'progress_state').map(([kind]) => kind)")
        seen["screenshots"] = sorted(path.name for path in shots.glob("*.png"))
        browser.close()
    return seen


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], json.loads(Path(sys.argv[3]).read_text()), Path(sys.argv[4]))))
