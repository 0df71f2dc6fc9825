"""How fast PyTorch learns the same word in the same way: the peer of `vocable learn`'s speed.

    pip install torch diffusers transformers
    python examples/score/speed_of_torch.py [--threads 2] [--batch 4] [--steps 60] [--model FOLDER] [--side 96]

This is the best that we could write with diffusers' models, not its example script: latents are encoded once, only the word's
own vector is a leaf (spliced into the embedded prompt), no weight has a gradient. Prints steps per second and peak memory.
"""
import argparse
import os
import resource
import time

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))


class Splice(torch.nn.Module):
    """The token table, with the learned vector in the place of one id."""

    def __init__(self, table, token, vector):
        super().__init__()
        self.weight, self.token, self.vector = table.weight, token, vector

    def forward(self, ids):
        return torch.where((ids == self.token).unsqueeze(-1), self.vector, F.embedding(ids, self.weight))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", default=os.path.join(HERE, "..", "models", "creatures"))
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--batch", type=int, default=4)
    p.add_argument("--steps", type=int, default=60)
    p.add_argument("--side", type=int, default=96)
    p.add_argument("--device", default="cpu")
    p.add_argument("--dtype", default="float32")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    kind = dict(torch_dtype=getattr(torch, a.dtype))
    tokenizer = CLIPTokenizer.from_pretrained(a.model, subfolder="tokenizer")
    text = CLIPTextModel.from_pretrained(a.model, subfolder="text_encoder", torch_dtype=torch.float32).to(a.device).requires_grad_(False)
    unet = UNet2DConditionModel.from_pretrained(a.model, subfolder="unet", **kind).to(a.device, memory_format=torch.channels_last).requires_grad_(False)
    vae = AutoencoderKL.from_pretrained(a.model, subfolder="vae", **kind).to(a.device).requires_grad_(False)
    schedule = DDPMScheduler.from_pretrained(a.model, subfolder="scheduler")

    token = tokenizer("cat").input_ids[1]
    embeddings = text.text_model.embeddings if hasattr(text, "text_model") else text.embeddings
    vector = embeddings.token_embedding.weight[token].clone().requires_grad_(True)
    embeddings.token_embedding = Splice(embeddings.token_embedding, token, vector)
    with torch.no_grad():
        posterior = vae.encode(torch.rand(1, 3, a.side, a.side, device=a.device, dtype=vae.dtype) * 2 - 1).latent_dist
        mean, std = posterior.mean.repeat(a.batch, 1, 1, 1), posterior.std.repeat(a.batch, 1, 1, 1)
    del vae
    ids = tokenizer(["a photo of a cat"] * a.batch, padding="max_length", max_length=77, return_tensors="pt").input_ids.to(a.device)
    optimiser = torch.optim.AdamW([vector], lr=5e-3, weight_decay=0)

    def step():
        latents = (mean + std * torch.randn_like(mean)) * .18215
        noise, t = torch.randn_like(latents), torch.randint(0, 1000, (a.batch,), device=a.device)
        out = unet(schedule.add_noise(latents, noise, t), t, text(ids)[0].to(unet.dtype)).sample
        F.mse_loss(out.float(), noise.float()).backward()
        optimiser.step()
        optimiser.zero_grad()
        if a.device != "cpu":
            torch.cuda.synchronize()

    for _ in range(3):
        step()
    start = time.perf_counter()
    for _ in range(a.steps):
        step()
    rate = a.steps / (time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() if a.device != "cpu" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"torch {torch.__version__}, {a.threads} threads, batch {a.batch}: {rate:.2f} steps/s, peak memory {peak / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
