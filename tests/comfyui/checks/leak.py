"""200 queued runs: memory, threads and open files do not grow."""

from __future__ import annotations

from bench import graphs
from bench.graphs import node
from bench.main import Bench

SETTLED, MIB_A_RUN = 50, 0.1


async def check(bench: Bench) -> None:
    """See above."""
    client = bench.client
    figures: list[list[int]] = []
    for number in range(bench.options.runs):
        # In the same graph: ComfyUI drops the model of a graph as soon as another one runs.
        graph = graphs.learn(seed=1000 + number, word="<leak>") | graphs.save("leak") | {"5": node("ProbeMemory", after=["4", 0], nonce=number)}
        run = await client.run(graph)
        if not run.ok:
            bench.expect(False, f"run {number}: {run.error()[:300]}")
            return
        figures.append([int(figure) for figure in run.ui("5")[0].split()])
        if number % 10 == 0:
            bench.report.note(
                f"run {number}: {figures[-1][0] / 2**20:.1f} MiB, {figures[-1][1]} threads, {figures[-1][2]} open files, {run.seconds:.1f} s"
            )
    if len(figures) <= SETTLED + 10:
        bench.report.skip(f"growth: {len(figures)} runs are too few to tell")
        return
    settled, last = figures[SETTLED], figures[-1]
    growth = slope([figure[0] / 2**20 for figure in figures[SETTLED:]])
    line = f"resident memory grows by {growth:.3f} MiB a run from the {SETTLED}th on"
    bench.expect(growth < MIB_A_RUN, f"{line} ({settled[0] / 2**20:.1f} to {last[0] / 2**20:.1f} MiB after {len(figures)} runs)")
    bench.expect(last[1] <= settled[1] and last[2] <= settled[2], f"threads {settled[1]} to {last[1]}, open files {settled[2]} to {last[2]}")


def slope(values: list[float]) -> float:
    """Of the line that fits best: a single jump at either end does not decide."""
    middle, mean = (len(values) - 1) / 2, sum(values) / len(values)
    return sum((x - middle) * (y - mean) for x, y in enumerate(values)) / sum((x - middle) ** 2 for x in range(len(values)))
