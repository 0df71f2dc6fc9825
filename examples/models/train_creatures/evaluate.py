"""Scores the exported pipeline through diffusers on trained words:

    python examples/models/train_creatures/evaluate.py [--nouns 16] [--steps 25] [--guidance 4] [--out scores]

Writes OUT.json and a contact sheet OUT.png.  Subject: share of silhouette, body colour, second colour and
texture that the judge reads as the noun's; background and style: share read as the caption says.
"""
import argparse
import json
import os
import random

import torch
from PIL import Image

import judge as judge_module
import world

HERE = os.path.dirname(os.path.abspath(__file__))
SUBJECT = ("silhouette", "body", "second", "texture")


def prompts(count, seed):
    """(group, caption, expected attributes) for plain nouns, nouns on backgrounds, descriptions, and styles."""
    rng, names, out = random.Random(seed), world.species(), []
    chosen = rng.sample(list(names), count)
    for n in chosen:
        look = names[n]._asdict()
        free = [c for c in world.COLOUR_NAMES if c not in (names[n].body, names[n].second)]
        out.append(("noun", f"a photo of a {n}", look))
        for b in rng.sample(free, 2):
            out.append(("noun on background", f"a photo of a {n} on a {b} background", {**look, "background": b}))
    for _ in range(count):
        look = world.random_look(rng)
        b = rng.choice([c for c in world.COLOUR_NAMES if c not in look])
        out.append(("description", f"a photo of a {look.body} {look.second} {look.texture} {look.silhouette} on a {b} background",
                    {**look._asdict(), "background": b}))
    for word, style in world.STYLE_WORDS.items():
        fitting = [n for n in names if world.fits_style(names[n], style)]
        for n in rng.sample(fitting, 3):
            if word != "photo":
                out.append(("style with noun", f"a painting of a {n} in the style of {word}", {**names[n]._asdict(), "style": style}))
                out.append(("style alone", f"a painting in the style of {word}", {"style": style}))
    return out


def generate(pipe, captions, steps, guidance, seed, batch=8):
    images = []
    for i in range(0, len(captions), batch):
        part = captions[i:i + batch]
        noise = [torch.Generator().manual_seed(seed + i + k) for k in range(len(part))]
        images += pipe(part, num_inference_steps=steps, guidance_scale=guidance, generator=noise,
                       height=world.PIXELS, width=world.PIXELS).images
    return images


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", default=os.path.join(HERE, "..", "creatures"))
    p.add_argument("--judge", default=os.path.join(HERE, "..", "creatures-judge"))
    p.add_argument("--nouns", type=int, default=16)
    p.add_argument("--steps", type=int, default=25)
    p.add_argument("--guidance", type=float, default=4.)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", default=os.path.join(HERE, "work", "scores"))
    a = p.parse_args()
    from diffusers import StableDiffusionPipeline
    pipe = StableDiffusionPipeline.from_pretrained(a.model)
    pipe.set_progress_bar_config(disable=True)
    asked = prompts(a.nouns, a.seed)
    images = generate(pipe, [q[1] for q in asked], a.steps, a.guidance, a.seed)
    seen = judge_module.score(judge_module.load(a.judge), images)
    groups, misses = {}, []
    for (group, text, want), got in zip(asked, seen):
        g = groups.setdefault(group, {"pictures": 0})
        g["pictures"] += 1
        for k, v in want.items():
            g.setdefault(k, []).append(got[k] == v)
        wrong = {k: got[k] for k, v in want.items() if got[k] != v}
        if wrong:
            misses.append({"caption": text, "read": wrong})
    for g in groups.values():
        if "silhouette" in g:
            g["subject"] = [r for k in SUBJECT for r in g[k]]
        for k, v in g.items():
            if isinstance(v, list):
                g[k] = round(sum(v) / len(v), 4)
    report = {"steps": a.steps, "guidance": a.guidance, "seed": a.seed, "groups": groups, "misses": misses}
    os.makedirs(os.path.dirname(os.path.abspath(a.out)), exist_ok=True)
    with open(a.out + ".json", "w") as f:
        json.dump(report, f, indent=1)
    wide, step = 12, world.PIXELS + 2
    sheet = Image.new("RGB", (wide * step, step * -(-len(images) // wide)), "grey")
    for i, im in enumerate(images):
        sheet.paste(im, (i % wide * step, i // wide * step))
    sheet.save(a.out + ".png")
    print(json.dumps(groups, indent=1))


if __name__ == "__main__":
    main()
