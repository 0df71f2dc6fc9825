"""First lessons for the text encoder: what do the words of a caption say about the picture?

Small linear heads read the attributes off every position from the end marker on (they are dropped afterwards).
It costs minutes and spares the UNet most of the work: two hundred nouns and the describing words then already
speak of silhouettes, colours and textures in the same way.
"""
import math
import random
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

import captions
import parallel
import world

HEADS = {"silhouette": world.SILHOUETTES, "body": world.COLOUR_NAMES, "second": world.COLOUR_NAMES,
         "texture": world.TEXTURES, "background": world.COLOUR_NAMES, "style": world.STYLES,
         "size": list(world.SIZES), "place": ["left", "right"]}
BATCH = 48                                       # captions per step and process


def said(scene, text, names):
    """head -> class number for what the caption says, -100 for what it leaves open."""
    found = set(text.split())
    noun = found & names.keys()
    out = {k: -100 for k in HEADS}
    for k, v in scene.look._asdict().items():
        if noun or v in found:
            out[k] = HEADS[k].index(v)
    if scene.background in found:
        out["background"] = HEADS["background"].index(scene.background)
    if text:
        out["style"] = HEADS["style"].index(scene.style)
    if scene.size in found:
        out["size"] = HEADS["size"].index(scene.size)
    for side in found & {"left", "right"}:
        out["place"] = HEADS["place"].index(side)
    return out


@torch.no_grad()
def begin(text, tok, names, seed=3):
    """Starts every noun's vector as the sum of four random ones, those of its attributes, shared by all nouns.

    So the vectors of nouns differ in meaningful directions from the start, and a look that no noun has is the
    sum of vectors too.  The words for silhouettes and textures start as the same random vectors.
    """
    table, g, ids = text.get_input_embeddings().weight, torch.Generator().manual_seed(seed), tok.get_vocab()
    code = {(k, v): torch.randn(table.shape[1], generator=g) * .02
            for k in ("silhouette", "body", "second", "texture") for v in HEADS[k]}
    for k in ("silhouette", "texture"):
        for v in HEADS[k]:
            table[ids[v + "</w>"]] = code[k, v]
    for noun, look in names.items():
        table[ids[noun + "</w>"]] = sum(code[k, v] for k, v in look._asdict().items())


def teach(text, tok, names, minutes, log):
    """Trains the text encoder in place for `minutes`."""
    heads = nn.ModuleDict({k: nn.Linear(text.config.hidden_size, len(v)) for k, v in HEADS.items()})
    for h in heads.values():
        nn.init.normal_(h.weight, std=.05)
    torch.manual_seed(77 + parallel.rank())
    params, rng, nouns = [*text.parameters(), *heads.parameters()], random.Random(77 + parallel.rank()), list(names)
    parallel.average([p.data for p in params], 0.)
    opt = torch.optim.AdamW(params, lr=1e-3, weight_decay=0, betas=(.9, .98))
    start, spent, step, budget = time.time(), 0., 0, minutes * 60
    while spent < budget:
        for group in opt.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 20) * (.5 + .5 * math.cos(math.pi * spent / budget)) + 1e-5
        pairs = [captions.example(names, nouns, rng) for _ in range(BATCH)]
        ids = torch.tensor(tok([p[1] for p in pairs], padding="max_length", max_length=77, truncation=True).input_ids)
        ids = ids[:, :77 if step % 3 == 0 else 40]               # causal: the shorter, cheaper lesson is as true
        truth = [said(*p, names) for p in pairs]
        hidden = text(ids)[0]
        after = (ids == tok.eos_token_id).unsqueeze(-1).float()
        pooled = (hidden * after).sum(1) / after.sum(1)                       # what uniform attention would see
        at = torch.tensor([rng.randrange(int(ids.shape[1] - a.sum().item()), ids.shape[1]) for a in after])
        one = hidden[torch.arange(BATCH), at]                                 # and one position alone
        loss, right, asked = 0., 0, 0
        for k, h in heads.items():
            y = torch.tensor([t[k] for t in truth])
            if (y >= 0).any():
                loss = loss + F.cross_entropy(h(pooled), y) + F.cross_entropy(h(one), y)
                right += (h(pooled).argmax(1) == y)[y >= 0].sum().item()
                asked += (y >= 0).sum().item()
        opt.zero_grad(set_to_none=True)
        loss.backward()
        for p in params:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        spent = parallel.average([p.grad for p in params], time.time() - start)
        nn.utils.clip_grad_norm_(params, 1.)
        opt.step()
        step += 1
        if step % 20 == 0 and not parallel.rank():
            log(f"words step {step} {spent:.0f}s loss {loss.item():.3f} right {right / asked:.3f}")
