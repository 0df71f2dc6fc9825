"""Silhouettes of the creatures, drawn from a handful of simple parts.

Coordinates run from -1 to 1 (x to the right, y down) inside the creature's box.  A part is
(role, kind, numbers): role "body" or "accent" (accents wear the second colour), kind "ellipse"
(cx, cy, rx, ry), "rect" (x0, y0, x1, y1) or "tri" (x0, y0, x1, y1, x2, y2).  Later parts lie on top.
"""
from functools import lru_cache

import numpy as np

CANVAS = 24                                     # art pixels per side of a picture


def _both(role, kind, *n):
    """A part and its mirror image."""
    if kind == "ellipse":
        m = (-n[0], *n[1:])
    elif kind == "rect":
        m = (-n[2], n[1], -n[0], n[3])
    else:
        m = tuple(-v if i % 2 == 0 else v for i, v in enumerate(n))
    return [(role, kind, *n), (role, kind, *m)]


SHAPES = {
    "cat": dict(eyes=[(-.34, -.2), (.34, -.2)], parts=[
        ("body", "rect", -.68, -.5, .68, .72), ("body", "rect", .68, .3, 1., .52), ("accent", "rect", .8, -.3, 1., .52),
        *_both("accent", "tri", .72, -.45, .66, -1.12, .08, -.45),
        *_both("accent", "rect", .22, .72, .6, 1.)]),
    "rabbit": dict(eyes=[(-.24, .2), (.24, .2)], parts=[
        *_both("accent", "ellipse", .32, -.55, .2, .5), ("body", "ellipse", 0, .38, .64, .6),
        *_both("accent", "ellipse", .42, .92, .36, .16)]),
    "fish": dict(eyes=[(.56, -.12)], parts=[
        ("accent", "tri", -.35, 0, -1.05, -.66, -1.05, .66), ("accent", "tri", .5, -.35, -.45, -.3, -.2, -.95),
        ("accent", "tri", .2, .35, -.25, .35, -.2, .85), ("body", "ellipse", .2, 0, .82, .58)]),
    "bird": dict(eyes=[(.42, -.58)], parts=[
        ("accent", "rect", -.34, .4, -.16, 1.), ("accent", "rect", .1, .4, .28, 1.),
        ("body", "tri", -.3, -.1, -1.1, -.5, -.9, .35), ("body", "ellipse", -.1, .1, .66, .52),
        ("body", "ellipse", .38, -.5, .42, .42), ("accent", "tri", .74, -.78, 1.1, -.42, .74, -.2)]),
    "crab": dict(eyes=[(-.24, -.5), (.24, -.5)], parts=[
        *_both("accent", "rect", .3, .5, .48, 1.), *_both("accent", "rect", .7, .3, .88, .92),
        *_both("body", "rect", .68, -.5, .84, .2), *_both("accent", "ellipse", .76, -.6, .25, .34),
        *_both("body", "rect", .13, -.62, .37, .0), ("body", "ellipse", 0, .25, .84, .46)]),
    "squid": dict(eyes=[(-.3, -.12), (.3, -.12)], parts=[
        *_both("accent", "rect", .56, .1, .78, .8), *_both("accent", "rect", .12, .1, .34, 1.),
        ("body", "ellipse", 0, -.28, .8, .74), ("body", "rect", -.8, -.28, .8, .3)]),
    "dino": dict(eyes=[(.58, -.78)], parts=[
        ("accent", "rect", -.56, .5, -.28, 1.), ("accent", "rect", .12, .5, .4, 1.),
        ("accent", "tri", -.62, .12, -.44, -.36, -.26, .12), ("accent", "tri", -.3, .06, -.12, -.42, .06, .06),
        ("body", "tri", -.45, .1, -1.12, -.12, -.45, .62), ("body", "ellipse", -.12, .36, .6, .38),
        ("body", "rect", .2, -.8, .56, .4), ("body", "ellipse", .56, -.74, .44, .27)]),
    "moth": dict(eyes=[(-.12, -.34), (.12, -.34)], parts=[
        *_both("accent", "rect", .22, -1., .38, -.6), *_both("body", "ellipse", .6, -.3, .42, .46),
        *_both("body", "ellipse", .5, .52, .38, .42), ("accent", "ellipse", 0, .1, .24, .82)]),
}
SILHOUETTES = list(SHAPES)


def _inside(kind, n, x, y):
    if kind == "ellipse":
        return ((x - n[0]) / n[2]) ** 2 + ((y - n[1]) / n[3]) ** 2 <= 1
    if kind == "rect":
        return (x >= n[0]) & (x <= n[2]) & (y >= n[1]) & (y <= n[3])
    side = [(x - n[i]) * (n[j + 1] - n[i + 1]) - (y - n[i + 1]) * (n[j] - n[i])
            for i, j in ((0, 2), (2, 4), (4, 0))]
    return ((side[0] >= 0) & (side[1] >= 0) & (side[2] >= 0)) | ((side[0] <= 0) & (side[1] <= 0) & (side[2] <= 0))


def _shifted(m, dx, dy):
    """The mask m moved by (dx, dy); what enters from outside is False."""
    p = np.pad(m, 1)
    return p[1 - dy:1 - dy + CANVAS, 1 - dx:1 - dx + CANVAS]


def grow(m):
    return m | _shifted(m, 1, 0) | _shifted(m, -1, 0) | _shifted(m, 0, 1) | _shifted(m, 0, -1)


@lru_cache(maxsize=None)
def masks(name, size, ox, oy):
    """Masks on the canvas: body, accent, outline (1 pixel around), inner (2 pixels away from the rim), eye corners."""
    g = (np.arange(CANVAS) + .5)
    x, y = np.meshgrid((g - ox) / size * 2 - 1, (g - oy) / size * 2 - 1)
    box = (np.abs(x) <= 1) & (np.abs(y) <= 1)
    body, accent = np.zeros((CANVAS, CANVAS), bool), np.zeros((CANVAS, CANVAS), bool)
    for role, kind, *n in SHAPES[name]["parts"]:
        m = _inside(kind, n, x, y) & box
        body, accent = (body | m, accent & ~m) if role == "body" else (body & ~m, accent | m)
    whole = body | accent
    hole = ~grow(~body) | False
    inner = ~grow(~hole)
    eyes = []
    for ex, ey in SHAPES[name]["eyes"]:
        px, py = (ex + 1) / 2 * size, (ey + 1) / 2 * size         # centre in art pixels within the box
        eyes.append((ox + 2 * int(px // 2), oy + 2 * int(py // 2)))
    return body, accent, grow(whole) & ~whole, inner, eyes
