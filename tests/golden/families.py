"""Makes tests/golden/families.json and families.safetensors: for each family of single-file checkpoints a model of true structure and tiny
widths, the names and shapes of its file, and what PyTorch computes with it.

    pip install torch diffusers transformers safetensors      (made with torch 2.15.0, diffusers 0.42.1, transformers 5.23.0)
    python tests/golden/families.py

The weights are not stored: both sides draw them from torch's generator, seeded with the CRC-32 of the tensor's name (`draw`). The ldm names
are written in families/names.py, and diffusers' own converters must turn them into exactly the names of the models that compute the goldens.
"""
import json
import os

import torch
from safetensors.torch import save_file

# The folder, which Python prefers to this file.
from families.goldens import goldens
from families.model import Family, Model
from families.samplers import SAMPLERS
from families.text import LdmText, Sd1Text, Sd2Text, SdxlText

HERE = os.path.dirname(os.path.abspath(__file__))
# The norm by whose spread ComfyUI knows a v-prediction model of Stable Diffusion 2.
TELLTALE = r"output_blocks\.11\.1\.transformer_blocks\.0\.norm1\.bias$"
# What attention and feed-forward add to the texts and, in the UNet, to the tokens of the picture. With no norm behind them, SDXL's contexts
# would grow until attention picked single tokens, and rounding alone would move the steps of training by 4e-4 of their length.
ADDED = r"(out_proj|fc2|c_proj|transformer_blocks.*(to_out\.0|ff\.net\.2))\.weight$"
SD2 = dict(text=Sd2Text, context=64, heads=(1, 1, 1, 1), more=dict(use_linear_projection=True))
SDXL = dict(
    use_linear_projection=True, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=[1, 2, 3],
    addition_embed_type="text_time", addition_time_embed_dim=32, projection_class_embeddings_input_dim=128 + 6 * 32)
FAMILIES = {
    "sd1": Family(text=Sd1Text, context=64),
    "sd1_inpainting": Family(text=Sd1Text, context=64, in_channels=9),
    "sd2": Family(scaled={TELLTALE: .1}, **SD2),
    "sd2_v": Family(scaled={TELLTALE: 2.}, prediction="v_prediction", **SD2),
    "sdxl": Family(text=SdxlText, context=64 + 128, widths=(32, 64, 128), heads=(1, 1, 2), scaling_factor=.13025, scaled={ADDED: .3},
                   more=SDXL),
    "ldm": Family(text=LdmText, context=96),
}


def judge(name, g):
    """What tells whether the numbers mean something: pictures with contrast, gradients that are neither nothing nor everything."""
    print(name)
    for k, v in g.items():
        part, _, kind = k.partition(".")
        if k in ("vae.decoded", "unet.y") or part == "sample" and v.dim() == 4:
            steps = [f"{step:.3f}" for step in (v[1:] - v[:-1]).std((1, 2, 3))] if kind in SAMPLERS else ""
            print(f"  {k} {tuple(v.shape)}: std {v.std():.3f}", steps and f"from step to step {steps}")
        elif kind.endswith("gradient"):
            print(f"  {k}: norm {v.norm():.3f}, of each vector {[f'{n:.3f}' for n in v.norm(dim=1)]}")


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)
    files, tensors = {}, {}
    for name, family in FAMILIES.items():
        model = Model(family)
        g = goldens(model)
        judge(name, g)
        files[name] = dict(shapes=model.shapes, scaled=model.scaled, prediction=family.prediction, scaling_factor=family.scaling_factor)
        tensors |= {f"{name}.{k}": v.contiguous() for k, v in g.items()}
    with open(os.path.join(HERE, "families.json"), "w") as f:
        json.dump(files, f, separators=(",", ":"))
    save_file(tensors, os.path.join(HERE, "families.safetensors"))
