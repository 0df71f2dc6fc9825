"""The graphs that the checks queue, in ComfyUI's API format."""

from __future__ import annotations

from typing import Any

Graph = dict[str, dict[str, Any]]

CHECKPOINT = "random_sd15.safetensors"


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """One node."""
    return {"class_type": class_type, "inputs": inputs}


def loader() -> Graph:
    """The model."""
    return {"1": node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT)}


def concept(folder: str = "shapes", resolution: int = 64, **more: Any) -> Graph:
    """The pictures."""
    return {"2": node("VocableLoadConceptImages", folder=folder, resolution=resolution, **more)}


def train(seed: int = 0, steps: int = 2, word: str = "<shape>", preview: str = "", **more: Any) -> Graph:
    """Learning."""
    given = {
        "model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2], "concept": ["2", 0], "placeholder": word, "init_words": "object", "vectors": 1,
        "preset": "recommended", "seed": seed, "preview_prompt": preview, "steps": steps, "batch_size": 1,
        "preview_count": 1, "preview_steps": 2, "preview_interval": 2,
    } | more  # fmt: skip
    return {"3": node("VocableTrainTextualInversion", **given)}


def learn(**more: Any) -> Graph:
    """Model, pictures and learning."""
    return loader() | concept() | train(**more)


def save(filename: str = "shape") -> Graph:
    """The word as a file."""
    return {"4": node("VocableSaveEmbedding", embedding=["3", 0], filename=filename, if_exists="overwrite")}


def paint(positive: list[Any], steps: int = 2, side: int = 64, prefix: str = "picture") -> Graph:
    """A picture of a conditioning."""
    return {
        "7": node("CLIPTextEncode", text="", clip=["1", 1]),
        "8": node("EmptyLatentImage", width=side, height=side, batch_size=1),
        "9": node(
            "KSampler", model=["1", 0], seed=7, steps=steps, cfg=3.0, sampler_name="euler", scheduler="normal",
            positive=positive, negative=["7", 0], latent_image=["8", 0], denoise=1.0,
        ),
        "10": node("VAEDecode", samples=["9", 0], vae=["1", 2]),
        "11": node("SaveImage", images=["10", 0], filename_prefix=prefix),
    }  # fmt: skip


def encode(text: str, embeddings: list[Any] | None = None, clip: list[Any] | None = None) -> Graph:
    """A prompt with learned words."""
    more = {"embeddings": embeddings} if embeddings else {}
    return {"6": node("VocableEncodePromptWithEmbeddings", text=text, clip=clip or ["1", 1], **more)}


def whole() -> Graph:
    """Learn, save, encode, paint, and draw the losses: the graph of the example workflow."""
    graph = loader() | concept() | train(preview="a photo of {}", steps=4) | save()
    graph |= encode("a photo of a <shape> on a red background", ["3", 0]) | paint(["6", 0])
    graph["5"] = node("LossGraphNode", loss=["3", 1], filename_prefix="loss")
    return graph
