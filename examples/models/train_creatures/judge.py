"""A small attribute judge: tells silhouette, colours, texture, style and background of a picture.

It sees the picture as 24x24 art pixels (average pooling by 4) and is trained on freshly drawn scenes with
noise, blur and colour shifts, in all six styles and on all looks, held-out ones included: it only measures.
"""
import json
import math
import os
import random
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import world

HEADS = {"silhouette": world.SILHOUETTES, "body": world.COLOUR_NAMES, "second": world.COLOUR_NAMES,
         "texture": world.TEXTURES, "style": world.STYLES, "background": world.COLOUR_NAMES}
CONVS = [(3, 32, 1), (32, 48, 2), (48, 64, 2), (64, 24, 1)]      # in, out, stride; 3x3, padding 1, ReLU after each
FEATURES, HIDDEN = 24 * 6 * 6, 96
POOL = 12000                                     # pictures drawn once for training


class Judge(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.ModuleList(nn.Conv2d(i, o, 3, s, 1) for i, o, s in CONVS)
        self.hidden = nn.Linear(FEATURES, HIDDEN)
        self.head = nn.ModuleDict({k: nn.Linear(HIDDEN, len(v)) for k, v in HEADS.items()})

    def forward(self, x):
        """x [B, 3, 96, 96] in -1..1 -> head name -> logits."""
        return self.see(F.avg_pool2d(x, world.ENLARGE))

    def see(self, x):
        """x [B, 3, 24, 24], the pooled picture."""
        for c in self.conv:
            x = F.relu(c(x))
        x = F.relu(self.hidden(x.flatten(1)))
        return {k: h(x) for k, h in self.head.items()}


def any_scene(rng):
    """Any look in any style, all combinations alike."""
    while True:
        body, second = rng.sample(world.COLOUR_NAMES, 2)
        look = world.Look(rng.choice(world.SILHOUETTES), body, second, rng.choice(world.TEXTURES))
        style = "none-solid" if rng.random() < .3 else rng.choice(world.STYLES)
        if world.fits_style(look, style):
            return world.scene(rng, look, style)


def truth(s):
    return {"silhouette": s.look.silhouette, "body": s.look.body, "second": s.look.second, "texture": s.look.texture,
            "style": s.style, "background": s.background}


def pictures(rng, n):
    """n scenes as art pixels [n, 3, 24, 24] in -1..1 and their class numbers per head."""
    scenes = [any_scene(rng) for _ in range(n)]
    x = torch.from_numpy(np.stack([world.draw(s) for s in scenes]).astype(np.float32)).permute(0, 3, 1, 2) * 2 - 1
    return x, {k: torch.tensor([HEADS[k].index(truth(s)[k]) for s in scenes]) for k in HEADS}


class Pool:
    """Many scenes drawn once without colours; every batch paints some of them anew."""

    def __init__(self, rng, n):
        self.scenes = [any_scene(rng) for _ in range(n)]
        self.paint = torch.from_numpy(np.stack([world.layers(s) for s in self.scenes])).long()
        self.classes = {k: torch.tensor([HEADS[k].index(truth(s)[k]) for s in self.scenes]) for k in HEADS}

    def batch(self, rng, n):
        chosen = [rng.randrange(len(self.scenes)) for _ in range(n)]
        y = {k: v[chosen] for k, v in self.classes.items()}
        colours = []
        for i, k in enumerate(chosen):
            s, outline = self.scenes[k], self.scenes[k].style.split("-")[0]
            while True:
                body, second, back = rng.sample(world.COLOUR_NAMES, 3)
                if outline not in (body, back):
                    break
            s = s._replace(look=s.look._replace(body=body, second=second), background=back)
            for head, name in (("body", body), ("second", second), ("background", back)):
                y[head][i] = world.COLOUR_NAMES.index(name)
            colours.append(world.paints(s))
        colours = torch.from_numpy(np.stack(colours).astype(np.float32)) * 2 - 1
        x = colours.gather(1, self.paint[chosen].view(n, -1, 1).expand(-1, -1, 3))
        return x.view(n, world.CANVAS, world.CANVAS, 3).permute(0, 3, 1, 2).contiguous(), y


def worsened(x):
    """Blur, colour shifts and noise of random strength."""
    n = len(x)
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = torch.lerp(x, soft, torch.rand(n, 1, 1, 1) * .5)
    x = x * (1 + .1 * torch.randn(n, 3, 1, 1)) + .07 * torch.randn(n, 3, 1, 1)
    return (x + torch.rand(n, 1, 1, 1) ** 2 * .35 * torch.randn_like(x)).clamp(-1, 1)


def logits(judge, art):
    """Answers for art pixels: the same as for the enlarged picture, without enlarging and pooling again."""
    return judge.see(art)


def accuracy(judge, n=2000, noise=False, worsen=False, seed=99):
    """Share right per head on fresh pictures, or, with noise, of labels that have nothing to do with the picture."""
    x, y = pictures(random.Random(seed), n)
    x = worsened(x) if worsen else x
    if noise:
        x = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).clamp(-1, 1)
    with torch.no_grad():
        out = logits(judge, x)
    return {k: round((out[k].argmax(1) == y[k]).float().mean().item(), 4) for k in HEADS}


def train(work, minutes, log):
    """Trains by time budget; work/judge.pt keeps the weights and the minutes spent."""
    path, judge, spent, kept = os.path.join(work, "judge.pt"), Judge(), 0., time.time()
    opt = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=1e-3)
    if os.path.exists(path):
        saved = torch.load(path)
        judge.load_state_dict(saved["judge"])
        spent = saved["spent"]
    budget, step = minutes * 60, 0
    if spent < budget:
        rng = random.Random(5 + int(spent))
        pool = Pool(rng, POOL)
        log(f"judge: {POOL} scenes drawn")
    start = time.time() - spent
    while spent < budget:
        for group in opt.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 100) * (.5 + .5 * math.cos(math.pi * spent / budget)) + 1e-6
        x, y = pool.batch(rng, 64)
        out = logits(judge, worsened(x))
        loss = sum(F.cross_entropy(out[k], y[k]) for k in HEADS)
        opt.zero_grad()
        loss.backward()
        opt.step()
        step, spent = step + 1, time.time() - start
        if step % 500 == 0:
            log(f"judge step {step} {spent:.0f}s loss {loss.item():.4f}")
        if time.time() - kept > 60 or spent >= budget:
            kept = time.time()
            torch.save(dict(judge=judge.state_dict(), spent=spent), path)
    return judge.eval()


def export(judge, folder, log):
    """Writes judge.safetensors (16-bit) and judge.json, which tells all that another implementation needs."""
    from safetensors.torch import save_file
    os.makedirs(folder, exist_ok=True)
    tensors = {k: v.half().contiguous() for k, v in judge.state_dict().items()}
    judge.load_state_dict({k: v.float() for k, v in tensors.items()})
    save_file(tensors, os.path.join(folder, "judge.safetensors"))
    layers = [{"op": "avg_pool", "kernel": world.ENLARGE, "stride": world.ENLARGE, "out": [3, 24, 24]}]
    side = world.CANVAS
    for k, (i, o, s) in enumerate(CONVS):
        side = (side + s - 1) // s
        layers += [{"op": "conv2d", "weight": f"conv.{k}.weight", "bias": f"conv.{k}.bias", "in": i, "out": o, "kernel": 3,
                    "padding": 1, "stride": s, "out_shape": [o, side, side]}, {"op": "relu"}]
    layers += [{"op": "flatten", "order": "channel, row, column", "out": FEATURES},
               {"op": "linear", "weight": "hidden.weight", "bias": "hidden.bias", "in": FEATURES, "out": HIDDEN}, {"op": "relu"}]
    heads = [{"name": k, "weight": f"head.{k}.weight", "bias": f"head.{k}.bias", "in": HIDDEN, "classes": v}
             for k, v in HEADS.items()]
    scores = {"fresh pictures": accuracy(judge), "worsened pictures": accuracy(judge, worsen=True),
              "noise": accuracy(judge, noise=True), "chance": {k: round(1 / len(v), 4) for k, v in HEADS.items()}}
    with open(os.path.join(folder, "judge.json"), "w") as f:
        json.dump({"format": "vocable-judge-1", "input": {"shape": ["B", 3, 96, 96], "range": [-1, 1], "channels": "RGB"},
                   "layers": layers, "heads": heads, "head_op": "linear of the last layer's output, one per head; argmax",
                   "subject": ["silhouette", "body", "second", "texture"], "weights": "IEEE half precision, [out, in, 3, 3] and [out, in]",
                   "accuracy": scores}, f, indent=1)
    log(f"judge exported: {scores}")


def load(folder):
    from safetensors.torch import load_file
    judge = Judge()
    judge.load_state_dict({k: v.float() for k, v in load_file(os.path.join(folder, "judge.safetensors")).items()})
    return judge.eval()


def score(judge, images):
    """PIL pictures or arrays [H, W, 3] in 0..255 (96x96) -> per picture head -> class name."""
    x = torch.from_numpy(np.stack([np.asarray(i, dtype=np.float32) for i in images])).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        out = judge(x)
    return [{k: HEADS[k][out[k][i].argmax().item()] for k in HEADS} for i in range(len(images))]
