"""The server answers while training runs."""

from __future__ import annotations

import asyncio
import time

from bench import graphs
from bench.main import Bench
from checks.interrupt import text_of

REQUESTS, SECONDS = 200, 0.1


async def check(bench: Bench) -> None:
    """See above."""
    client = bench.client
    idle = await measure(bench)
    since = len(client.events)
    prompt_id = await client.queue(graphs.learn(seed=300, steps=400, word="<busy>") | graphs.save("busy"))
    await client.wait_for(text_of("step 1"), since)
    first = len(client.events)
    busy = await measure(bench)
    during = [event for event in client.events[first:] if event.kind == "text" and "step" in event.data["text"]]
    ended = [event for event in client.events[first:] if event.kind == "execution_success"]
    await client.interrupt()
    await client.end(prompt_id, since)
    bench.report.note(f"latency of an idle server: median {median(idle):.1f} ms, 95th percentile {percentile(idle):.1f} ms")
    line = (
        f"while training: median {median(busy):.1f} ms, 95th percentile {percentile(busy):.1f} ms, longest {max(busy):.1f} ms of {REQUESTS} requests"
    )
    bench.expect(percentile(busy) < SECONDS * 1000 and not ended, f"{line}; {len(during)} steps were reported meanwhile")


async def measure(bench: Bench) -> list[float]:
    """Milliseconds of each request."""
    times = []
    for number in range(REQUESTS):
        started = time.perf_counter()
        await bench.client.get("/system_stats" if number % 2 else "/queue")
        times.append((time.perf_counter() - started) * 1000)
        await asyncio.sleep(0.03)
    return sorted(times)


def median(times: list[float]) -> float:
    """Of sorted times."""
    return times[len(times) // 2]


def percentile(times: list[float]) -> float:
    """The 95th of sorted times."""
    return times[int(len(times) * 0.95)]
