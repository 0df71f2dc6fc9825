"""Models of true structure and random weights, made on the spot by ComfyUI's own classes: ComfyUI tells families apart by their true widths.

    python -m bench.checkpoint sd15 FILE     Stable Diffusion 1.5 in one file, f16, 2 GB
    python -m bench.checkpoint sdxl-clip DIR the two text encoders of Stable Diffusion XL, f16, 1.6 GB
    python -m bench.checkpoint vae FILE      the autoencoder of that checkpoint, in a file of its own
    python -m bench.checkpoint lora FILE     a LoRA for Stable Diffusion 1.5, a few MB

To be run in ComfyUI's folder, by ComfyUI's Python.
"""

from __future__ import annotations

import math
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# How large activations stay through the layers; with 1 they grow, since residual paths add up.
GAIN = 0.6
VAE = "first_stage_model."


def fill(name: str, like: torch.Tensor) -> torch.Tensor:
    """A tensor of the shape of `like`, the same for the same name: scales 1, offsets 0, weights so that activations neither grow nor vanish."""
    import torch

    shape = tuple(like.shape)
    if not like.dtype.is_floating_point:
        # Numbers of positions.
        return torch.arange(shape[-1]).expand(shape).contiguous()
    if len(shape) < 2:
        one = name.endswith("weight") or name.endswith("logit_scale")
        return torch.full(shape, 1.0 if one else 0.0, dtype=torch.float16)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    scale = 0.02 if "embedding" in name else GAIN / math.sqrt(math.prod(shape[1:]))
    # As wide as a normal distribution of that scale.
    return torch.empty(shape).uniform_(-1.0, 1.0, generator=generator).mul_(scale * math.sqrt(3.0)).to(torch.float16)


def _shapes(module: torch.nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in module.state_dict().items()}


def _clip(kind: str) -> dict[str, torch.Tensor]:
    """The text encoder of a kind, in the names of its own file."""
    import comfy.sd1_clip
    import comfy.sdxl_clip
    import torch

    make = comfy.sd1_clip.SDClipModel if kind == "l" else comfy.sdxl_clip.SDXLClipG
    with torch.device("meta"):
        model = make(device="meta", dtype=torch.float16)
    return _shapes(model.transformer, "")


def sd15() -> dict[str, torch.Tensor]:
    """Names and shapes of a checkpoint of Stable Diffusion 1.5."""
    import comfy.ops
    import comfy.supported_models
    import torch
    from comfy.ldm.models.autoencoder import AutoencoderKL
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    known = comfy.supported_models.SD15
    unet = dict(known.unet_config) | {
        "image_size": 32, "in_channels": 4, "out_channels": 4, "num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4],
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1,
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "num_heads": 8, "num_head_channels": -1, "use_spatial_transformer": True,
        "legacy": False, "use_checkpoint": False,
    }  # fmt: skip
    vae = {
        "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128, "ch_mult": [1, 2, 4, 4],
        "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
    }  # fmt: skip
    with torch.device("meta"):
        denoiser = UNetModel(**unet, device="meta", dtype=torch.float16, operations=comfy.ops.disable_weight_init)
        autoencoder = AutoencoderKL(ddconfig=vae, embed_dim=4)
    shapes = _shapes(denoiser, "model.diffusion_model.") | _shapes(autoencoder, VAE)
    text = {f"cond_stage_model.transformer.{name}": shape for name, shape in _clip("l").items() if name.startswith("text_model.")}
    return shapes | text


def save(shapes: dict[str, torch.Tensor], path: Path) -> None:
    """Writes random weights of these shapes, whole or not at all."""
    from safetensors.torch import save_file

    half = path.with_suffix(".part")
    save_file({name: fill(name, shape) for name, shape in shapes.items()}, half)
    half.rename(path)


def lora() -> dict[str, torch.Tensor]:
    """Names and shapes of a LoRA of rank 4 on the attention of text encoder and denoiser, in the names of kohya's trainer."""
    import torch

    shapes = {}
    for name, shape in sd15().items():
        denoiser = name.startswith("model.diffusion_model.") and ".attn" in name and name.endswith("to_q.weight")
        text = name.startswith("cond_stage_model.") and name.endswith("q_proj.weight")
        if not (denoiser or text):
            continue
        inner = name.removeprefix("model.diffusion_model.").removeprefix("cond_stage_model.transformer.").removesuffix(".weight")
        stem = f"lora_te_{inner}".replace(".", "_") if text else f"diffusion_model.{inner}"
        down, up = ("lora_down", "lora_up") if text else ("lora_A", "lora_B")
        shapes[f"{stem}.{down}.weight"] = torch.empty(4, shape.shape[1], device="meta")
        shapes[f"{stem}.{up}.weight"] = torch.empty(shape.shape[0], 4, device="meta")
    return shapes


def main() -> None:
    """See above."""
    sys.path.insert(0, ".")
    from comfy.cli_args import args

    args.cpu = True
    kind, path = sys.argv[1], Path(sys.argv[2])
    if kind == "sd15":
        save(sd15(), path)
    elif kind == "vae":
        save({name.removeprefix(VAE): shape for name, shape in sd15().items() if name.startswith(VAE)}, path)
    elif kind == "lora":
        save(lora(), path)
    else:
        path.mkdir(parents=True, exist_ok=True)
        for encoder in ("l", "g"):
            save(_clip(encoder), path / f"random_clip_{encoder}.safetensors")


if __name__ == "__main__":
    main()
