"""A family's model of true structure and tiny widths, through the names of its file."""
import re
import zlib
from dataclasses import dataclass, field

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders import single_file_utils as peer

from . import names


def draw(name, shape):
    """Norm weights about 1, biases small, tables and matrices so that a signal keeps its size."""
    r = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if "embedding" in name:
        return r * .1
    if len(shape) == 1:
        return r * .2 + 1 if name.endswith(".weight") else r * .2
    fan = 1
    for n in shape[1:]:
        fan *= n
    return r * torch.tensor(1.5 / fan ** .5)


@dataclass
class Family:
    text: type
    context: int
    in_channels: int = 4
    prediction: str = "epsilon"
    widths: tuple = (32, 32, 64, 64)
    # Attention heads of each level.
    heads: tuple = (8, 8, 8, 8)
    scaling_factor: float = .18215
    # Which of the file's drawn tensors are multiplied, as patterns of names, and by what.
    scaled: dict = field(default_factory=dict)
    # Of the UNet's configuration.
    more: dict = field(default_factory=dict)


class Model:
    """The networks of a family, loaded from its file."""

    def __init__(self, family):
        self.family, self.text = family, family.text()
        self.unet = UNet2DConditionModel(
            sample_size=16, in_channels=family.in_channels, block_out_channels=family.widths, layers_per_block=2,
            cross_attention_dim=family.context, attention_head_dim=family.heads, **family.more)
        self.vae = AutoencoderKL(
            block_out_channels=(32, 32, 64, 64), down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2, latent_channels=4, sample_size=64)
        self.shapes = self.file_shapes()
        self.scaled = {name: by for name in self.shapes for pattern, by in family.scaled.items() if re.search(pattern, name)}
        file = {name: draw(name, shape) * self.scaled.get(name, 1) for name, shape in self.shapes.items()}
        # The peer turns the file into its own models: it has to find every one of their tensors under the names that were written here.
        self.unet.load_state_dict(peer.convert_ldm_unet_checkpoint(dict(file), dict(self.unet.config)), strict=True)
        self.vae.load_state_dict(peer.convert_ldm_vae_checkpoint(dict(file), dict(self.vae.config)), strict=True)
        for encoder in self.text.encoders.values():
            encoder.load(file)
        for network in (self.unet, self.vae):
            network.eval().requires_grad_(False)

    def file_shapes(self):
        theirs, shapes = self.unet.state_dict(), {}
        for k, v in theirs.items():
            shapes["model.diffusion_model." + names.unet_name(k, theirs)] = list(v.shape)
        for k, v in self.vae.state_dict().items():
            name = names.vae_name(k, len(self.vae.config.block_out_channels))
            # 1 x 1 convolutions there.
            shapes["first_stage_model." + name] = list(v.shape) + [1, 1] * ("mid.attn_1" in name and v.dim() == 2)
        for encoder in self.text.encoders.values():
            shapes |= encoder.shapes()
        return shapes

    def encode(self, ids):
        """The context of the texts and, in SDXL, their pooled state."""
        return self.text.condition({e: encoder.run(ids[e]) for e, encoder in self.text.encoders.items()})

    def predict(self, x, t, context, pooled=None, time_ids=None):
        added = None if pooled is None else {"text_embeds": pooled, "time_ids": time_ids}
        return self.unet(x, t, context, added_cond_kwargs=added).sample
