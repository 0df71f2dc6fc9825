"""What is done already is not done again; what changed is."""

from __future__ import annotations

from bench import graphs, pictures
from bench.main import Bench


async def check(bench: Bench) -> None:
    """See above."""
    client = bench.client
    graph = graphs.learn(seed=11, word="<cached>") | graphs.save("cached")
    first = await client.run(graph)
    bench.expect(first.ok, f"a run to be repeated {first.error()[:300]}")
    # ComfyUI may drop results that nothing asks for, such as the model's; what matters is that no node runs.
    second = await client.run(graph)
    bench.expect(second.ok and not second.executed(), f"the second run is cached: ran {second.executed()}, cached {sorted(second.cached())}")
    other = await client.run(renamed(graph))
    line = "the same graph with other node ids is cached, too, no result hangs on an id"
    bench.expect(other.ok and not other.executed(), f"{line}: ran {other.executed()}")
    pictures.shape(bench.home / "input" / "shapes" / "1.png", 5)
    third = await client.run(graph)
    again = {"2", "3", "4"} & set(third.executed())
    bench.expect(third.ok and again == {"2", "3", "4"}, f"a changed picture runs {sorted(again)} again")
    mark = len(bench.server.lines)
    await client.post("/free", {"unload_models": True, "free_memory": True})
    fourth = await client.run(graph)
    # With its cache gone ComfyUI runs the node again; the node finds its finished run on disk.
    steps = [line for line in fourth.texts("3") if "step" in line and "loss" in line]
    bench.expect(fourth.ok and "3" not in fourth.cached() and not steps, f"after Unload and Free the finished run is read, not trained again {steps}")
    bench.expect("Vocable gave back its copy of a MODEL" in bench.log(mark), "the copies were given back when ComfyUI asked")


def renamed(graph: graphs.Graph) -> graphs.Graph:
    """The same graph with other ids."""
    made = {}
    for key, item in graph.items():
        inputs = {name: [f"9{value[0]}", value[1]] if isinstance(value, list) else value for name, value in item["inputs"].items()}
        made[f"9{key}"] = graphs.node(item["class_type"], **inputs)
    return made
