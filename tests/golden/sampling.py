"""Makes tests/golden/sampling.safetensors: latents of every step and the pictures of reference loops over diffusers' UNet of tests/golden/tiny,
from explicit sigmas and noise. The loops are the samplers' formulas written out (Karras et al. 2022, algorithm 2; Lu et al. 2022,
DPM-Solver++(2M)); only the networks come from diffusers.

    pip install torch diffusers transformers safetensors      (made with torch 2.15.0, diffusers 0.42.1, transformers 5.23.0)
    python tests/golden/sampling.py
"""
import os
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
TINY = os.path.join(HERE, "tiny")
torch.manual_seed(11)
unet = UNet2DConditionModel.from_pretrained(f"{TINY}/unet", torch_dtype=torch.float32).eval().requires_grad_(False)
vae = AutoencoderKL.from_pretrained(f"{TINY}/vae", torch_dtype=torch.float32).eval().requires_grad_(False)
betas = torch.linspace(0.00085 ** 0.5, 0.012 ** 0.5, 1000, dtype=torch.float64) ** 2
ac = torch.cumprod(1 - betas, 0)
all_sigmas = ((1 - ac) / ac).sqrt()
CFG = 2.0


def denoised(x, sigma, cond, uncond):
    t = (all_sigmas.log() - torch.tensor(sigma).log()).abs().argmin().item()
    inp = (x / (sigma ** 2 + 1) ** 0.5).float()
    e = [unet(inp, torch.full((len(x),), t), c.expand(len(x), -1, -1)).sample.double() for c in (cond, uncond)]
    d = [x - sigma * v for v in e]
    return d[1] + CFG * (d[0] - d[1])


def euler(x, s, D):
    out = []
    for i in range(len(s) - 1):
        x = x + (x - D(x, s[i])) / s[i] * (s[i + 1] - s[i])
        out.append(x)
    return out


def euler_ancestral(x, s, D, noise):
    out = []
    for i in range(len(s) - 1):
        d = D(x, s[i])
        up = min(s[i + 1], (s[i + 1] ** 2 * (s[i] ** 2 - s[i + 1] ** 2) / s[i] ** 2) ** 0.5)
        down = (s[i + 1] ** 2 - up ** 2) ** 0.5
        x = x + (x - d) / s[i] * (down - s[i])
        if s[i + 1] > 0:
            x = x + noise[i] * up
        out.append(x)
    return out


def dpmpp_2m(x, s, D):
    out, old, lam = [], None, [-torch.tensor(v).log().item() if v > 0 else float("inf") for v in s]
    for i in range(len(s) - 1):
        d = D(x, s[i])
        if s[i + 1] == 0:
            x = d
        else:
            h = lam[i + 1] - lam[i]
            use = d
            if old is not None:
                r = (lam[i] - lam[i - 1]) / h
                use = (1 + 1 / (2 * r)) * d - 1 / (2 * r) * old
            x = s[i + 1] / s[i] * x - (torch.tensor(-h).exp().item() - 1) * use
        old = d
        out.append(x)
    return out


sigmas = [all_sigmas[i].float().double().item() for i in (999, 870, 700, 520, 350, 200, 90, 20)] + [0.0]
cond, uncond = torch.randn(1, 77, 32), torch.randn(1, 77, 32)
noise, other = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
# torch's generator at seed + 1 is what the ancestral sampler draws from.
gen = torch.Generator().manual_seed(43 + 1)
steps_noise = [torch.randn(2, 4, 8, 8, generator=gen).double() for _ in range(7)]
g = {"sigmas": torch.tensor(sigmas, dtype=torch.float64), "cond": cond, "uncond": uncond, "noise": noise, "other": other}
D = lambda x, sigma: denoised(x, sigma, cond, uncond)
start = lambda n: n.double() * (1 + sigmas[0] ** 2) ** 0.5
with torch.no_grad():
    for name, run in (("euler", lambda n: euler(start(n), sigmas, D)), ("dpmpp_2m", lambda n: dpmpp_2m(start(n), sigmas, D)),
                      ("euler_ancestral", lambda n: euler_ancestral(start(n), sigmas, D, steps_noise))):
        steps = run(noise)
        g[f"{name}.steps"] = torch.stack(steps).float()
        g[f"{name}.pixels"] = vae.decode((steps[-1] / 0.25).float()).sample.clamp(-1, 1)
    g["other.pixels"] = vae.decode((euler(start(other), sigmas, D)[-1] / 0.25).float()).sample.clamp(-1, 1)
for k, v in g.items():
    print(k, tuple(v.shape), f"std {v.std():.3f}")
save_file({k: v.contiguous() for k, v in g.items()}, os.path.join(HERE, "sampling.safetensors"))
