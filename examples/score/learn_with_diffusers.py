"""Textual inversion as diffusers' own example trains it, on the model that ships: the peer's row of the score table.

    pip install torch diffusers transformers pillow
    python examples/score/learn_with_diffusers.py --seeds 1 --out output/diffusers
    cargo run --release -p score -- --learned output/diffusers --label "diffusers (torch)" --presets diffusers --seeds 1

The recipe is that of `examples/textual_inversion` in diffusers with the values of its README: batch 1, accumulation 4,
3000 optimiser steps, rate 5e-4 scaled by both, AdamW with weight decay 1e-2, constant rate, mirrored at random, uniform
timesteps; every picture is encoded anew at every step, the token table is extended, trained as a whole, and all rows but the
new one are written back after each optimiser step.  Two things are left out because they would only cost the peer time: data
loader processes and validation pictures.
"""
import argparse
import json
import os
import random
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
EXAMPLES = os.path.dirname(HERE)
sys.path.insert(0, os.path.join(EXAMPLES, "models", "train_creatures"))
from captions import OBJECT_TEMPLATES, STYLE_TEMPLATES  # noqa: E402  the paper's templates

WORD = "<word>"


def pictures(folder, side):
    """The concept's pictures as [N, 3, side, side] in -1..1."""
    names = sorted(n for n in os.listdir(folder) if n.endswith(".png"))
    images = [Image.open(os.path.join(folder, n)).convert("RGB").resize((side, side), Image.BICUBIC) for n in names]
    return torch.from_numpy(np.stack([np.asarray(i, np.float32) for i in images]) / 127.5 - 1).permute(0, 3, 1, 2)


def learn(model, folder, kind, seed, steps, batch=1, accumulation=4, base_rate=5e-4, weight_decay=1e-2, side=96):
    """One word; returns (vectors [1, d], seconds without loading the model)."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    tokenizer = CLIPTokenizer.from_pretrained(model, subfolder="tokenizer")
    text = CLIPTextModel.from_pretrained(model, subfolder="text_encoder", torch_dtype=torch.float32)
    vae = AutoencoderKL.from_pretrained(model, subfolder="vae", torch_dtype=torch.float32)
    unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet", torch_dtype=torch.float32)
    schedule = DDPMScheduler.from_pretrained(model, subfolder="scheduler")

    start = time.perf_counter()
    initial = tokenizer.convert_tokens_to_ids(tokenizer.tokenize("style" if kind == "style" else "creature"))
    tokenizer.add_tokens(WORD)
    placeholder = tokenizer.convert_tokens_to_ids(WORD)
    text.resize_token_embeddings(len(tokenizer))
    table = text.get_input_embeddings().weight
    with torch.no_grad():
        table[placeholder] = table[initial[0]]
    for part in (vae, unet, text):
        part.requires_grad_(False)
    table.requires_grad_(True)
    original = table.detach().clone()
    others = torch.arange(len(table)) != placeholder

    x = pictures(folder, side)
    templates = STYLE_TEMPLATES if kind == "style" else OBJECT_TEMPLATES
    optimiser = torch.optim.AdamW([table], lr=base_rate * batch * accumulation, betas=(.9, .999), weight_decay=weight_decay)
    order = []
    for _ in range(steps):
        for _ in range(accumulation):
            if len(order) < batch:
                order += rng.sample(range(len(x)), len(x))
            pixels = torch.stack([x[order.pop()].flip(-1) if rng.random() < .5 else x[order.pop()] for _ in range(batch)])
            prompts = [rng.choice(templates).format(WORD) for _ in range(batch)]
            ids = tokenizer(prompts, padding="max_length", truncation=True, max_length=tokenizer.model_max_length,
                            return_tensors="pt").input_ids
            latents = vae.encode(pixels).latent_dist.sample() * vae.config.scaling_factor
            noise = torch.randn_like(latents)
            t = torch.randint(0, schedule.config.num_train_timesteps, (batch,))
            noisy = schedule.add_noise(latents, noise, t)
            out = unet(noisy, t, text(ids)[0]).sample
            target = schedule.get_velocity(latents, noise, t) if schedule.config.prediction_type == "v_prediction" else noise
            (F.mse_loss(out, target) / accumulation).backward()
        optimiser.step()
        optimiser.zero_grad()
        with torch.no_grad():
            table[others] = original[others]
    return table[placeholder:placeholder + 1].detach().clone(), time.perf_counter() - start


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", default=os.path.join(EXAMPLES, "models", "creatures"))
    p.add_argument("--concepts", default=os.path.join(EXAMPLES, "concepts"))
    p.add_argument("--only", nargs="*", default=[])
    p.add_argument("--seeds", type=int, default=1)
    p.add_argument("--steps", type=int, default=3000)
    p.add_argument("--out", default="output/diffusers")
    a = p.parse_args()
    os.makedirs(a.out, exist_ok=True)
    with open(os.path.join(a.concepts, "concepts.json")) as f:
        concepts = json.load(f)
    times_path = os.path.join(a.out, "seconds.json")
    times = json.load(open(times_path)) if os.path.exists(times_path) else {}
    for name, truth in concepts.items():
        for seed in range(a.seeds):
            run = f"{name}-{seed}"
            if run in times or (a.only and name not in a.only):
                continue
            vectors, seconds = learn(a.model, os.path.join(a.concepts, name), truth["kind"], seed, a.steps)
            save_file({WORD: vectors}, os.path.join(a.out, run + ".safetensors"))
            times[run] = round(seconds, 1)
            with open(times_path, "w") as f:
                json.dump(times, f, indent=1)
            print(f"{run}: {seconds:.1f} s for {a.steps} steps", flush=True)


if __name__ == "__main__":
    main()
