"""The little world the model is trained on: pixel-art creatures and how to draw them.

A look is (silhouette, body colour, second colour, texture).  Two hundred invented nouns each
name one fixed look; CONCEPTS are looks kept out of training, together with every look that differs from
one of them in a single attribute.  A style is (outline, fill); HELD_STYLE is the one combination that has
no word and is never drawn for training.
"""
import random
from typing import NamedTuple

import numpy as np

from shapes import CANVAS, SILHOUETTES, masks

ENLARGE = 4
PIXELS = CANVAS * ENLARGE
COLOURS = {"red": (.88, .12, .12), "yellow": (.98, .85, .12), "green": (.12, .66, .22), "cyan": (.20, .80, .92),
           "blue": (.14, .22, .84), "pink": (.96, .42, .78), "white": (.97, .97, .97), "black": (.06, .06, .08)}
COLOUR_NAMES = list(COLOURS)
TEXTURES = ["plain", "striped", "spotted", "checkered"]
OUTLINES = ["none", "black", "white"]
FILLS = ["solid", "hollow"]
STYLES = [f"{o}-{f}" for o in OUTLINES for f in FILLS]           # all six, in the judge's order
STYLE_WORDS = {"photo": "none-solid", "cartoon": "black-solid", "sticker": "white-solid", "stencil": "none-hollow",
               "neon": "white-hollow"}
HELD_STYLE = "black-hollow"
SIZES = {"small": 14, "normal": 18, "large": 22}
PLACES = {"small": [(0, 6), (4, 6), (10, 6)], "normal": [(2, 4)], "large": [(0, 2)]}   # left upper corners
NOUNS = 200
SPARE_NOUNS = 80                                 # words of the vocabulary that no training picture shows


class Look(NamedTuple):
    silhouette: str
    body: str
    second: str
    texture: str


class Scene(NamedTuple):
    """Everything needed to draw one picture."""
    look: Look
    style: str
    background: str
    size: str
    x: int
    y: int


CONCEPTS = {"zorvo": Look("cat", "green", "yellow", "striped"),
            "mibbet": Look("bird", "pink", "white", "plain"),
            "quandle": Look("dino", "blue", "red", "spotted"),
            "trumsk": Look("squid", "cyan", "black", "checkered")}
STYLE_CONCEPT = "inkwork"                                        # folder name of the held-out style


def held_out(look):
    """True for the concepts and for looks that differ from one of them in at most one attribute."""
    return any(sum(a != b for a, b in zip(look, c)) <= 1 for c in CONCEPTS.values())


def random_look(rng):
    while True:
        body, second = rng.sample(COLOUR_NAMES, 2)
        look = Look(rng.choice(SILHOUETTES), body, second, rng.choice(TEXTURES))
        if not held_out(look):
            return look


def _noun(rng):
    on = ["b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "br", "dr", "fl", "gr", "kl", "pl", "sn", "tr"]
    end = ["b", "d", "g", "k", "l", "m", "n", "p", "r", "x", "ff", "lk", "nt", "sh", "zz", ""]
    return rng.choice(on) + rng.choice("aeiou") + rng.choice(on[:14]) + rng.choice("aeiou") + rng.choice(end)


def species(count=NOUNS, seed=7):
    """noun -> look; the same on every machine."""
    rng, out, seen = random.Random(seed), {}, set()
    while len(out) < count:
        look, noun = random_look(rng), _noun(rng)
        if look not in seen and noun not in out:
            out[noun] = look
            seen.add(look)
    return out


def scene(rng, look, style="none-solid", background=None, size=None):
    """A scene around a look: a free colour for the background; most are of normal size in the middle."""
    taken = {look.body, look.second, style.split("-")[0]}
    size = size or rng.choices(list(SIZES), (12, 78, 10))[0]
    x, y = rng.choice(PLACES[size])
    return Scene(look, style, background or rng.choice([c for c in COLOUR_NAMES if c not in taken]), size, x, y)


def fits_style(look, style):
    """An outline must differ from the body colour, or it could not be seen."""
    return look.body != style.split("-")[0]


def _texture(kind, size, ox, oy):
    """Where the second colour shows on the body; the pattern is fixed to the creature's box, in cells of 2."""
    i, j = np.mgrid[0:CANVAS, 0:CANVAS]
    i, j = (i - oy) // 2, (j - ox) // 2
    if kind == "striped":
        return i % 2 == 0
    if kind == "spotted":
        return (i % 2 == 1) & ((j + i // 2) % 2 == 1)
    if kind == "checkered":
        return (i // 2 + j // 2) % 2 == 1
    return np.zeros((CANVAS, CANVAS), bool)


BACK, BODY, SECOND, RIM, WHITE, BLACK = range(6)


def layers(s):
    """Which of the six paints every art pixel gets [24, 24]; needs no colours."""
    size = SIZES[s.size]
    body, accent, rim, inner, eyes = masks(s.look.silhouette, size, s.x, s.y)
    outline, fill = s.style.split("-")
    paint = np.full((CANVAS, CANVAS), BACK, np.uint8)
    paint[body] = BODY
    if fill == "hollow":
        paint[inner] = BACK
    paint[body & _texture(s.look.texture, size, s.x, s.y)] = SECOND
    paint[accent] = SECOND
    if outline != "none":
        paint[rim] = RIM
    for ex, ey in eyes:
        paint[ey:ey + 2, ex] = WHITE
        paint[ey:ey + 2, ex + 1] = BLACK
    return paint


def paints(s):
    """The colours of the six paints of a scene [6, 3]."""
    c1, c2, bg = (np.array(COLOURS[c]) for c in (s.look.body, s.look.second, s.background))
    outline = COLOURS.get(s.style.split("-")[0], bg)
    return np.array([bg, c1, c2, outline, COLOURS["white"], COLOURS["black"]])


def draw(s):
    """The scene as a float array [24, 24, 3] in 0..1."""
    return paints(s)[layers(s)]


def enlarge(img, times=ENLARGE):
    """Bigger pixels, no smoothing; works on [..., H, W, C]."""
    return img.repeat(times, -3).repeat(times, -2)
