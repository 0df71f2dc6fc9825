"""Interrupt stops a run within a second, whatever it is at, and what was learned is kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from bench import graphs
from bench.client import Event
from bench.main import Bench

SECONDS = 1.0
ENDS = ("execution_success", "execution_error", "execution_interrupted")


def graph(seed: int) -> graphs.Graph:
    """A run that is long enough to be interrupted."""
    return graphs.learn(seed=seed, steps=50, preview="a photo of {}", word="<stopped>", preview_steps=20) | graphs.save("stopped")


def text_of(start: str) -> Callable[[Event], bool]:
    """Waits for a line on the training node."""
    return lambda event: event.kind == "text" and event.data["node"] == "3" and start in event.data["text"]


async def check(bench: Bench) -> None:
    """See above."""
    client = bench.client
    await client.post("/free", {"unload_models": True, "free_memory": True})
    await asyncio.sleep(1.5)
    phases = [
        ("copying the denoiser", text_of("copying the MODEL"), 0.4),
        ("copying the text encoder", text_of("copying the CLIP"), 0.05),
        ("copying the autoencoder", text_of("copying the VAE"), 0.05),
        ("encoding the pictures", text_of("encoding the pictures"), 0.2),
        ("painting a preview", text_of("painting the preview"), 0.5),
        ("a training step", text_of("step 1"), 0.4),
        ("the next training step", text_of("step 2"), 0.0),
    ]
    for number, (name, begins, delay) in enumerate(phases):
        since = len(client.events)
        prompt_id = await client.queue(graph(100 + number))

        def reached(event: Event, begins: Callable = begins, prompt_id: str = prompt_id) -> bool:
            return begins(event) or (event.kind in ENDS and event.data.get("prompt_id") == prompt_id)

        event = await client.wait_for(reached, since)
        await asyncio.sleep(delay)
        started = time.monotonic()
        await client.interrupt()
        run = await client.end(prompt_id, since)
        took = (run.of("execution_interrupted") or run.events)[-1].at - started
        stopped = bool(run.of("execution_interrupted"))
        at = event.data.get("text", event.kind)
        bench.expect(stopped and took < SECONDS, f"interrupt during {name} ({at!r}): {took:.2f} s {run.error()[:200]}")
    said = client.events[since:]
    said = client.events[since:]
    # A list of seeds: ComfyUI runs the node once for each, all at once as far as it is concerned.
    listed = graph(0) | {"30": graphs.node("ProbeInts", count=3)}
    listed["3"]["inputs"]["seed"] = ["30", 0]
    mapped = len(client.events)
    prompt_id = await client.queue(listed)
    await client.wait_for(text_of("step 1"), mapped)
    started = time.monotonic()
    await client.interrupt()
    run = await client.end(prompt_id, mapped)
    ends = run.of("execution_interrupted")
    bench.expect(bool(ends) and ends[-1].at - started < SECONDS, f"one interrupt stops all runs over a list: {(ends or run.events)[-1].at - started:.2f} s")
    last = [event.data["text"] for event in said if event.kind == "text"]
    bench.expect(any("stopped" in text for text in last), f"the node says what became of it: {last[-1:]}")
    since = len(client.events)
    prompt_id = await client.queue(graph(100 + number))
    first = await client.wait_for(text_of("step "), since)
    await client.interrupt()
    await client.end(prompt_id, since)
    bench.expect("step 1 " not in first.data["text"] + " ", f"queued again, the run goes on from where it was: {first.data['text']!r}")
    other = {"1": graphs.node("EmptyImage", width=8, height=8, batch_size=1, color=0), "2": graphs.node("PreviewImage", images=["1", 0])}
    run = await client.run(other)
    bench.expect(run.ok, "the next graph runs")
