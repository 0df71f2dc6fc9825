"""What PyTorch computes with a model."""
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler

from .samplers import SAMPLERS
from .text import END, START, VOCABULARY

# What ComfyUI gives an inpainting model that is sampled without a mask (`set_inpaint`, model_base.py): the mask is one everywhere, and the
# masked picture's latents are those of grey, already multiplied by the scaling factor.
BLANK = (1, .8223, -.6876, .6364, .1380)
# (original height, width, crop from the top, from the left, wanted height, width): all different, so that their order matters.
TIME_IDS = ((512, 768, 16, 64, 448, 640), (1536, 1024, 0, 128, 1152, 960))
# The nearest whole timesteps of the second and third are 699 and 401.
TIMESTEPS = (999, 699.3, 400.7, 100)


def sentences(words, pad):
    """Two texts of such words, with the start, the end at 9 and 20, and what fills them up."""
    ids = words.clone()
    ids[:, 0] = START
    for row, end in enumerate((9, 20)):
        ids[row, end], ids[row, end + 1:] = END, pad
    return ids


def blank(like):
    """The extra channels of an inpainting model."""
    return torch.tensor(BLANK).reshape(1, -1, 1, 1).expand(len(like), -1, *like.shape[2:])


def text(model):
    words = torch.randint(0, 590, (2, 77))
    ids = {e: sentences(words, encoder.pad) for e, encoder in model.text.encoders.items()}
    out = {e: encoder.run(ids[e]) for e, encoder in model.text.encoders.items()}
    return {f"{e}ids": ids[e] for e in ids} | model.text.goldens(out)


def unet(model):
    family = model.family
    g = {"x": torch.randn(2, family.in_channels, 16, 24), "t": torch.tensor([7, 931]), "context": torch.randn(2, 77, family.context)}
    if "g." in model.text.encoders:
        g |= {"pooled": torch.randn(2, 128), "time_ids": torch.tensor(TIME_IDS)}
    return g | {"y": model.predict(**g)}


def vae(model):
    pixels = torch.rand(1, 3, 64, 48) * 2 - 1
    posterior = model.vae.encode(pixels).latent_dist
    return {"pixels": pixels, "mean": posterior.mean, "std": posterior.std, "decoded": model.vae.decode(posterior.mean).sample}


def train(model):
    """Five steps. Latents of 16 x 16: at 8 x 8 the deepest norm would see groups of two numbers, and f32 and f64 would part in torch itself."""
    family, encoders = model.family, model.text.encoders
    sched = DDPMScheduler(beta_start=.00085, beta_end=.012, beta_schedule="scaled_linear", prediction_type=family.prediction)
    ids = {e: torch.tensor([[START, 5, VOCABULARY, VOCABULARY + 1, 8, END] + [encoder.pad] * 71] * 2) for e, encoder in encoders.items()}
    vectors = {e: encoder.table.vectors for e, encoder in encoders.items()}
    z, noise, t = torch.randn(5, 2, 4, 16, 16), torch.randn(5, 2, 4, 16, 16), torch.randint(0, 1000, (5, 2))
    g = {f"{e}ids": v for e, v in ids.items()} | {"z": z, "noise": noise, "t": t}
    g |= {f"{e}start": v.detach().clone() for e, v in vectors.items()}
    if "g." in encoders:
        low, high = torch.tensor([256, 256, 0, 0, 256, 256]), torch.tensor([1536, 1536, 256, 256, 1024, 1024])
        g["time_ids"] = low + (torch.rand(5, 2, 6) * (high - low)).long()
    # An eps near the gradient: with the usual one, entries of almost no gradient would step by their sign, which the order of a sum decides.
    opt, steps = torch.optim.AdamW(vectors.values(), lr=5e-3, eps=1e-2), {e: [] for e in vectors}
    for s in range(5):
        x = sched.add_noise(z[s], noise[s], t[s])
        if family.in_channels > 4:
            x = torch.cat([x, blank(x)], 1)
        context, pooled = model.encode(ids)
        target = noise[s] if family.prediction == "epsilon" else sched.get_velocity(z[s], noise[s], t[s])
        loss = F.mse_loss(model.predict(x, t[s], context, pooled, g["time_ids"][s] if "time_ids" in g else None), target)
        opt.zero_grad()
        loss.backward()
        if s == 0:
            g |= {f"{e}gradient": v.grad.clone() for e, v in vectors.items()}
        opt.step()
        for e, v in vectors.items():
            steps[e].append(v.detach().clone())
    return g | {f"{e}trajectory": torch.stack(v) for e, v in steps.items()}


def sample(model, given):
    """Latents after each of four steps from one noise, with the first conditions that the UNet's goldens were given."""
    family = model.family
    betas = torch.linspace(.00085 ** .5, .012 ** .5, 1000, dtype=torch.float64) ** 2
    kept = torch.cumprod(1 - betas, 0)
    logs = ((1 - kept) / kept).sqrt().log()
    at = torch.tensor(TIMESTEPS, dtype=torch.float64)
    below = at.floor().long()
    between = logs[below] + (at - below) * (logs[at.ceil().long()] - logs[below])
    sigmas = torch.cat([between.exp().float().double(), torch.zeros(1, dtype=torch.float64)])
    conditions = {k: v[:1] for k, v in given.items() if k in ("context", "pooled", "time_ids")}

    def estimate(x, sigma):
        t = (logs - torch.tensor(sigma, dtype=torch.float64).log()).abs().argmin()
        size = (sigma ** 2 + 1) ** .5
        network = (x / size).to(model.unet.dtype)
        if family.in_channels > 4:
            network = torch.cat([network, blank(network)], 1)
        y = model.predict(network, t.expand(1), **conditions).double()
        return x - sigma * y if family.prediction == "epsilon" else x / size ** 2 - sigma / size * y
    noise = torch.randn(1, 4, 16, 16)
    start = noise.double() * (1 + sigmas[0].item() ** 2) ** .5
    g = {"sigmas": sigmas, "noise": noise}
    with torch.no_grad():
        for name, run in SAMPLERS.items():
            g[name] = torch.cat(run(start, sigmas.tolist(), estimate)).float()
    return g


def goldens(model):
    torch.manual_seed(5)
    parts = {"text": text(model), "unet": unet(model), "vae": vae(model), "train": train(model)}
    parts["sample"] = sample(model, parts["unet"])
    return {f"{part}.{k}": v.detach() for part, g in parts.items() for k, v in g.items()}
