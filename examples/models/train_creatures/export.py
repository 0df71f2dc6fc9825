"""Writes the trained parts as an ordinary Stable Diffusion folder, and the pictures of the held-out concepts."""
import json
import os
import random
import shutil

from PIL import Image
from safetensors.torch import load_file, save_file

import denoiser
import tokenizer
import vae as vae_module
import world

INDEX = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.35.0", "feature_extractor": [None, None],
         "image_encoder": [None, None], "requires_safety_checker": False,
         "safety_checker": [None, None], "scheduler": ["diffusers", "DDIMScheduler"],
         "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
         "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}


def _replace(new, old):
    """Moves every file of the folder `new` over the one in `old`, each at once."""
    for here, _, files in os.walk(new):
        there = os.path.join(old, os.path.relpath(here, new))
        os.makedirs(there, exist_ok=True)
        for f in files:
            os.chmod(os.path.join(here, f), 0o644)
            os.replace(os.path.join(here, f), os.path.join(there, f))
    shutil.rmtree(new)


def _usual_names(path):
    """Stable Diffusion 1 files say text_model.…; newer versions of transformers leave that out when they save."""
    tensors = {k if k.startswith("text_model.") else "text_model." + k: v for k, v in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def pipeline(folder, vae, scale, unet, text, words, half=("unet", "vae")):
    """Saves all parts next to `folder` first, then puts them in place; `half`: parts stored in 16 bit."""
    new = folder.rstrip("/") + ".new"
    shutil.rmtree(new, ignore_errors=True)
    vae.register_to_config(scaling_factor=scale)
    fresh = vae_module.new()                                     # plain memory layout
    fresh.register_to_config(scaling_factor=scale)
    fresh.load_state_dict({k: v.contiguous() for k, v in vae.state_dict().items()})
    for name, part in (("vae", fresh), ("unet", unet), ("text_encoder", text)):
        part = part.half() if name in half else part
        part.save_pretrained(os.path.join(new, name), safe_serialization=True)
    _usual_names(os.path.join(new, "text_encoder", "model.safetensors"))
    denoiser.scheduler().save_pretrained(os.path.join(new, "scheduler"))
    tokenizer.write(os.path.join(new, "tokenizer"), words)
    for part in ("vae", "unet"):                                 # no machine-dependent path in the configurations
        path = os.path.join(new, part, "config.json")
        config = json.load(open(path))
        config.pop("_name_or_path", None)
        json.dump(config, open(path, "w"), indent=2, sort_keys=True)
    with open(os.path.join(new, "model_index.json"), "w") as f:
        json.dump(INDEX, f, indent=2)
    _replace(new, folder)


def concepts(folder, names, pictures=5):
    """Draws the held-out looks (default style) and the held-out style (five known creatures)."""
    truth = {}

    def save(name, k, scene):
        os.makedirs(os.path.join(folder, name), exist_ok=True)
        art = (world.enlarge(world.draw(scene)) * 255).round().astype("uint8")
        Image.fromarray(art).save(os.path.join(folder, name, f"{k}.png"))

    rng = random.Random(41)
    for name, look in world.CONCEPTS.items():
        free = [c for c in world.COLOUR_NAMES if c not in (look.body, look.second)]
        backgrounds = rng.sample(free, pictures)
        for k, b in enumerate(backgrounds):
            save(name, k + 1, world.scene(rng, look, background=b, size="small" if k == 4 else "normal"))
        truth[name] = {"kind": "object", "silhouette": look.silhouette, "body": look.body, "second": look.second,
                       "texture": look.texture, "style": "none-solid", "backgrounds": backgrounds}
    known = [n for n in names if world.fits_style(names[n], world.HELD_STYLE)]
    chosen = []
    for n in known:                                              # five silhouettes, five body colours
        if len(chosen) < pictures and all(names[n].silhouette != names[c].silhouette and names[n].body != names[c].body
                                          for c in chosen):
            chosen.append(n)
    shown = []
    for k, n in enumerate(chosen):
        scene = world.scene(rng, names[n], world.HELD_STYLE, size="normal")
        save(world.STYLE_CONCEPT, k + 1, scene)
        # A word for a style is learned from pictures whose captions tell what else is on them.
        with open(os.path.join(folder, world.STYLE_CONCEPT, f"{k + 1}.txt"), "w") as f:
            f.write(f"a {scene.look.body} {scene.look.silhouette} in the style of {{}} on a {scene.background} background\n")
        shown.append({"noun": n, **names[n]._asdict(), "background": scene.background})
    outline, fill = world.HELD_STYLE.split("-")
    truth[world.STYLE_CONCEPT] = {"kind": "style", "style": world.HELD_STYLE, "outline": outline, "fill": fill, "pictures": shown}
    with open(os.path.join(folder, "concepts.json"), "w") as f:
        json.dump(truth, f, indent=1)


def nouns(path, names):
    """noun -> look, for everyone who wants to know what a word should look like."""
    with open(path, "w") as f:
        json.dump({"classes": {"silhouette": world.SILHOUETTES, "colour": world.COLOUR_NAMES, "texture": world.TEXTURES,
                               "style_words": world.STYLE_WORDS},
                   "nouns": {n: look._asdict() for n, look in names.items()}}, f, indent=None, separators=(",", ":"))


def megabytes(folder):
    return sum(os.path.getsize(os.path.join(h, f)) for h, _, fs in os.walk(folder) for f in fs) / 1e6
