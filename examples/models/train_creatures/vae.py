"""The autoencoder: AutoencoderKL, factor 8, four small levels, trained on freshly drawn pictures."""
import glob
import math
import os
import random
import time

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

import captions
import parallel
import world

BATCH = 4                                        # pictures per step, over all processes


def new():
    return AutoencoderKL(block_out_channels=(8, 16, 32, 64), down_block_types=("DownEncoderBlock2D",) * 4,
                         up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=1, latent_channels=4,
                         norm_num_groups=4, sample_size=world.PIXELS)


def pictures(scenes):
    """Scenes as a tensor [N, 3, 96, 96] in -1..1."""
    art = np.stack([world.draw(s) for s in scenes])
    return torch.from_numpy(world.enlarge(art)).permute(0, 3, 1, 2).float().contiguous() * 2 - 1


def any_scene(rng, names):
    """Scenes for the autoencoder: half as in training, half in a random trained style."""
    return captions.example(names, list(names), rng)[0]


def train(work, minutes, names, log):
    """Trains by time budget with a cosine learning rate; resumes from work/vae.pt."""
    path, rng, batch = os.path.join(work, "vae.pt"), random.Random(11 + parallel.rank()), BATCH // parallel.workers()
    torch.manual_seed(0)
    vae = new().to(memory_format=torch.channels_last)
    opt = torch.optim.AdamW(vae.parameters(), lr=2e-3, weight_decay=0, betas=(.9, .99))
    spent, step, budget = 0., 0, minutes * 60
    if os.path.exists(path):
        saved = torch.load(path, weights_only=False)
        vae.load_state_dict(saved["vae"])
        if saved["done"]:
            return vae.eval().requires_grad_(False), saved["scale"]
        opt.load_state_dict(saved["opt"])
        spent, step, rng = saved["spent"], saved["step"], random.Random(1000 * parallel.rank() + saved["step"])
    torch.manual_seed(1000 * parallel.rank() + step)
    start, kept, params = time.time() - spent, time.time(), list(vae.parameters())
    while spent < budget:
        for group in opt.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 100) * (.5 + .5 * math.cos(math.pi * spent / budget)) + 1e-5
        x = pictures([any_scene(rng, names) for _ in range(batch)]).contiguous(memory_format=torch.channels_last)
        latent = vae.encode(x).latent_dist
        out = vae.decode(latent.sample()).sample
        miss, kl = F.l1_loss(out, x) + F.mse_loss(out, x), latent.kl().mean() / latent.mean[0].numel()
        opt.zero_grad()
        (miss + 5e-4 * kl).backward()
        spent = parallel.average([p.grad for p in params], time.time() - start)
        torch.nn.utils.clip_grad_norm_(params, 1.)
        opt.step()
        step += 1
        if step % 50 == 0 and not parallel.rank():
            log(f"vae step {step} {spent:.0f}s l1+mse {miss.item():.4f} kl {kl.item():.3f}")
        if time.time() - kept > 60 and not parallel.rank():
            kept = time.time()
            torch.save(dict(vae=vae.state_dict(), opt=opt.state_dict(), spent=spent, step=step, done=False, scale=None), path)
    if parallel.rank():
        return None
    vae.eval().requires_grad_(False)
    x = pictures([any_scene(rng, names) for _ in range(128)])
    with torch.no_grad():
        z = vae.encode(x).latent_dist.sample()
        out = vae.decode(z).sample
    scale = 1 / z.std().item()
    log(f"vae finished: {step} steps of {BATCH}, error {F.l1_loss(out, x):.4f} (L1), scaling_factor {scale:.4f}")
    torch.save(dict(vae=vae.state_dict(), opt=None, spent=spent, step=step, done=True, scale=scale), path)
    return vae, scale


def cache_latents(vae, work, count, names, tok, log):
    """Draws this process's share of `count` captioned pictures once; keeps posterior mean and deviation and token ids."""
    rank = parallel.rank()
    path = os.path.join(work, f"latents_{rank}.pt")
    if os.path.exists(path):
        return
    rng, nouns, stats, text, share = random.Random(23 + rank), list(names), [], [], count // parallel.workers()
    with torch.no_grad():
        for i in range(0, share, 32):
            pairs = [captions.example(names, nouns, rng) for _ in range(32)]
            d = vae.encode(pictures([p[0] for p in pairs]).contiguous(memory_format=torch.channels_last)).latent_dist
            stats.append(torch.stack([d.mean, d.std]).half().contiguous())
            text += [p[1] for p in pairs]
            if i % 3200 == 0:
                log(f"latents {i} of {share} (process {rank})")
    ids = torch.tensor(tok(text, padding="max_length", max_length=77, truncation=True).input_ids, dtype=torch.int16)
    torch.save(dict(stats=torch.cat(stats, 1), ids=ids), path)


def load_latents(work):
    """All cached shares: stats [2, N, 4, 12, 12] (16 bit), ids [N, 77]."""
    parts = [torch.load(p) for p in sorted(glob.glob(os.path.join(work, "latents_*.pt")))]
    return dict(stats=torch.cat([p["stats"] for p in parts], 1), ids=torch.cat([p["ids"] for p in parts]))


def polish_decoder(work, minutes, names, log):
    """Trains the decoder on, with the encoder (and so all cached latents) fixed, on slightly noisy latents.

    The denoiser's latents are never exact; a decoder that has seen up to 30 % of noise paints clean colours from them.
    """
    path = os.path.join(work, "vae.pt")
    saved = torch.load(path, weights_only=False)
    vae = new().to(memory_format=torch.channels_last)
    vae.load_state_dict(saved["vae"])
    if saved.get("polished", 0) >= minutes:
        return
    vae.requires_grad_(False)
    vae.decoder.requires_grad_(True)
    vae.post_quant_conv.requires_grad_(True)
    params = [p for p in vae.parameters() if p.requires_grad]
    opt = torch.optim.AdamW(params, lr=1e-3, weight_decay=0, betas=(.9, .99))
    rng, noise = random.Random(5000 + parallel.rank()), .3 / saved["scale"]
    torch.manual_seed(5000 + parallel.rank())
    start, spent, step, budget, batch = time.time(), 0., 0, minutes * 60, BATCH // parallel.workers()
    while spent < budget:
        for group in opt.param_groups:
            group["lr"] = 1.5e-3 * min(1, (step + 1) / 100) * (.5 + .5 * math.cos(math.pi * spent / budget)) + 1e-5
        x = pictures([any_scene(rng, names) for _ in range(batch)]).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            z = vae.encode(x).latent_dist.sample()
            z = z + noise * torch.rand(batch, 1, 1, 1) * torch.randn_like(z)
        out = vae.decode(z).sample
        miss = F.l1_loss(out, x) + F.mse_loss(out, x)
        opt.zero_grad()
        miss.backward()
        spent = parallel.average([p.grad for p in params], time.time() - start)
        torch.nn.utils.clip_grad_norm_(params, 1.)
        opt.step()
        step += 1
        if step % 100 == 0 and not parallel.rank():
            log(f"decoder step {step} {spent:.0f}s l1+mse {miss.item():.4f}")
    if not parallel.rank():
        saved.update(vae=vae.state_dict(), polished=minutes)
        torch.save(saved, path + ".new")
        os.replace(path + ".new", path)
