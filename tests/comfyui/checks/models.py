"""ComfyUI's own models: patched ones are taken as they compute, what cannot be honoured is refused by name."""

from __future__ import annotations

import re

from bench import graphs
from bench.graphs import node
from bench.main import Bench
from checks.encode import compare


async def check(bench: Bench) -> None:
    """See above."""
    client = bench.client
    lora = bench.make("lora", bench.models / "lora.safetensors")
    name = bench.offer("loras", lora)
    patched = graphs.loader() | {"20": node("LoraLoader", model=["1", 0], clip=["1", 1], lora_name=name, strength_model=1.0, strength_clip=1.0)}
    await compare(bench, "SD1.5 with a LoRA on its CLIP", patched, ["20", 1], ["weights"])
    graph = patched | graphs.encode("a cat", clip=["20", 1])
    graph["7"], graph["9"] = node("CLIPTextEncode", text="a cat", clip=["1", 1]), node("ProbeCompare", a=["6", 0], b=["7", 0])
    run = await client.run(graph)
    apart = float(run.ui("9")[0].split()[-2]) if run.ok else 0.0
    bench.expect(apart > 1e-3, f"the LoRA does change the CLIP: {apart:.1e} {run.error()[:200]}")

    async def losses(loader: graphs.Graph, model: list, clip: list, **more: list) -> str:
        train = graphs.train(word="<patched>", seed=5, model=model, clip=clip, **more)
        graph = loader | graphs.concept() | train | graphs.save("patched")
        run = await client.run(graph)
        found = [line for line in run.texts("3") if "loss" in line]
        return found[-1] if run.ok and found else run.error()[:300]

    plain = await losses(graphs.loader(), ["1", 0], ["1", 1])
    model_only = await losses(patched, ["20", 0], ["1", 1])
    loss = [re.search(r"loss ([\d.]+)", line) for line in (plain, model_only)]
    bench.expect(all(loss) and loss[0][1] != loss[1][1], f"learning on a LoRA-patched MODEL is another run: {plain!r}, {model_only!r}")
    clips = bench.make("sdxl-clip", bench.models / "sdxl-clip")
    apart = patched | {
        "21": node("ModelMergeSimple", model1=["1", 0], model2=["20", 0], ratio=0.5),
        "22": node("CLIPLoader", clip_name=bench.offer("text_encoders", clips / "random_clip_l.safetensors"), type="stable_diffusion"),
        "23": node("VAELoader", vae_name=bench.offer("vae", bench.make("vae", bench.models / "vae.safetensors"))),
    }
    merged = await losses(apart, ["21", 0], ["22", 0], vae=["23", 0])
    bench.expect("loss" in merged, f"learning on a merge, with CLIP and VAE from loaders of their own: {merged!r}")
    for what, sampling, zsnr in [("v-prediction", "v_prediction", False), ("v-prediction with zero terminal SNR", "v_prediction", True)]:
        changed = graphs.loader() | {"24": node("ModelSamplingDiscrete", model=["1", 0], sampling=sampling, zsnr=zsnr)}
        line = await losses(changed, ["24", 0], ["1", 1])
        found = re.search(r"loss ([\d.]+)", line)
        bench.expect(found is not None and found[1] not in plain, f"ModelSamplingDiscrete, {what}: another loss, {line!r}")
    copied = [line for line in bench.server.lines if "Vocable copied the MODEL" in line]
    bench.expect(
        bool(copied) and "before: process" in copied[-1] and "after: process" in copied[-1], f"memory before and after is told: {copied[-1:]}"
    )
    names = [bench.offer("text_encoders", clips / f"random_clip_{encoder}.safetensors") for encoder in ("l", "g")]
    dual = graphs.loader() | {"25": node("DualCLIPLoader", clip_name1=names[0], clip_name2=names[1], type="sdxl")}
    wrong = await losses(dual, ["1", 0], ["25", 0])
    bench.expect("2048" in wrong and "768" in wrong, f"a CLIP of another family than the MODEL: {wrong.strip()!r}")
    for what, model, part in [
        ("attention", "attn2_patch", "MODEL"),
        ("wrapper", "model_function_wrapper", "MODEL"),
        ("clip schedule", "hooks", "CLIP"),
    ]:
        graph = graphs.loader() | {"20": node("ProbeHook", model=["1", 0], clip=["1", 1], what=what)} | graphs.concept() | graphs.save()
        graph |= graphs.train(model=["20", 0], clip=["20", 1], word="<refused>")
        message = (await client.run(graph)).error()
        bench.expect(model in message and part in message and "from before" in message, f"refused by name: {message.strip()!r}")
