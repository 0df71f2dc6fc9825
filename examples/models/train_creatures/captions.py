"""Captions for scenes.  A caption never contradicts its picture, but may leave anything out.

The object and style templates are those of Textual Inversion, so that what a user trains with them later
meets a model that knows them.  Words such as "clean", "dark" or "cropped" say nothing about the picture here.
"""
import re

import world

OBJECT_TEMPLATES = [
    "a photo of a {}", "a rendering of a {}", "a cropped photo of the {}", "the photo of a {}",
    "a photo of a clean {}", "a photo of a dirty {}", "a dark photo of the {}", "a photo of my {}",
    "a photo of the cool {}", "a close-up photo of a {}", "a bright photo of the {}", "a cropped photo of a {}",
    "a photo of the {}", "a good photo of the {}", "a photo of one {}", "a close-up photo of the {}",
    "a rendition of the {}", "a photo of the clean {}", "a rendition of a {}", "a photo of a nice {}",
    "a good photo of a {}", "a photo of the nice {}", "a photo of the small {}", "a photo of the weird {}",
    "a photo of the large {}", "a photo of a cool {}", "a photo of a small {}"]
STYLE_TEMPLATES = [
    "a painting in the style of {}", "a rendering in the style of {}", "a cropped painting in the style of {}",
    "the painting in the style of {}", "a clean painting in the style of {}", "a dirty painting in the style of {}",
    "a dark painting in the style of {}", "a picture in the style of {}", "a cool painting in the style of {}",
    "a close-up painting in the style of {}", "a bright painting in the style of {}",
    "a cropped painting in the style of {}", "a good painting in the style of {}",
    "a close-up painting in the style of {}", "a rendition in the style of {}", "a nice painting in the style of {}",
    "a small painting in the style of {}", "a weird painting in the style of {}", "a large painting in the style of {}"]
STYLED_SUBJECT = ["a painting of a {0} in the style of {1}", "a {0} in the style of {1}", "a {1} of a {0}",
                  "a picture of a {0} in the style of {1}", "a rendering of a {0} in the style of {1}",
                  "a photo of a {0} in the style of {1}", "a {1} of the {0}", "{1} {0}", "a painting of a {1} {0}"]
BACKGROUND = [" on a {} background", " with a {} background", " on a {} background", " on {}"]
GENERIC = ["creature", "creature", "creature", "thing", "animal"]


def _described(look, rng):
    """The look in plain words: silhouette word or a generic one, with some of its attributes."""
    kind = look.silhouette if rng.random() < .8 else rng.choice(GENERIC)
    form = rng.choice(["{b} {s} {t} {k}", "{b} and {s} {t} {k}", "{t} {b} {s} {k}", "{t} {b} and {s} {k}", "{b} {t} {k}",
                       "{t} {b} {k}", "{b} and {s} {k}", "{b} {k}", "{t} {k}", "{k}"])
    return form.format(b=look.body, s=look.second, t=look.texture, k=kind)


def _place(scene, rng):
    """Position words for creatures clearly off the centre, seldom "in the middle"."""
    free = world.CANVAS - world.SIZES[scene.size]
    if scene.size == "small" and scene.x in (0, free):
        return rng.choice([" on the left", " to the left"]) if scene.x == 0 else rng.choice([" on the right", " to the right"])
    return " in the middle" if rng.random() < .1 else ""


def caption(scene, noun, rng):
    """A caption for the scene; noun is the look's own name or None for a random look."""
    if rng.random() < .1:
        return ""
    word = next(w for w, s in world.STYLE_WORDS.items() if s == scene.style)
    if noun is None or rng.random() < .05:
        noun = _described(scene.look, rng)
    sized = scene.size != "normal" and rng.random() < .45
    if word == "photo":
        ok = [t for t in OBJECT_TEMPLATES if not (set(t.split()) & {"small", "large"})]
        text = rng.choice(ok).format(f"{scene.size} {noun}" if sized else noun)
    elif rng.random() < .3:
        text = rng.choice([t for t in STYLE_TEMPLATES if not (set(t.split()) & {"small", "large"})])
        if scene.size != "normal" and rng.random() < .3:
            text = f"a {scene.size} painting in the style of {{}}"
        text = text.format(word)
    else:
        text = rng.choice(STYLED_SUBJECT).format(f"{scene.size} {noun}" if sized else noun, word)
    parts = [rng.choice(BACKGROUND).format(scene.background) if rng.random() < .6 else "",
             _place(scene, rng) if rng.random() < .5 else ""]
    if rng.random() < .2:
        parts.reverse()
    return text + "".join(parts)


def example(names, nouns, rng):
    """(scene, caption): 72 % default style, most of them nouns."""
    if rng.random() < .72:
        if rng.random() < .65:
            noun = rng.choice(nouns)
            scene = world.scene(rng, names[noun])
        else:
            noun, scene = None, world.scene(rng, world.random_look(rng))
    else:
        style = rng.choice([s for s in world.STYLE_WORDS.values() if s != "none-solid"])
        while True:
            noun = rng.choice(nouns) if rng.random() < .4 else None
            look = names[noun] if noun else world.random_look(rng)
            if world.fits_style(look, style):
                break
        scene = world.scene(rng, look, style)
    return scene, caption(scene, noun, rng)


def all_words():
    """Every word a caption can hold, a few more for users' prompts, and nouns that still have no meaning."""
    text = OBJECT_TEMPLATES + STYLE_TEMPLATES + STYLED_SUBJECT + BACKGROUND + GENERIC + world.COLOUR_NAMES
    text += world.TEXTURES + world.SILHOUETTES + list(world.STYLE_WORDS) + list(world.species(world.NOUNS + world.SPARE_NOUNS))
    text += ["small large on to the left right in middle and with of an style art image picture drawing clay comic plush , . -"]
    return sorted({w for t in text for w in re.findall(r"[a-z]+|[-,.]", t)})
