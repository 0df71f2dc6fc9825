"""Pictures to learn from, and pictures read back."""

from __future__ import annotations

from pathlib import Path

import numpy
from PIL import Image, ImageDraw


def shape(path: Path, number: int, side: int = 96) -> None:
    """A figure on a plain ground, another one for each number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (side, side), (200, 60 + 20 * (number % 8), 90))
    draw = ImageDraw.Draw(image)
    inset = 12 + 3 * (number % 5)
    draw.ellipse([inset, inset, side - inset, side - inset], fill=(30, 80, 220))
    draw.rectangle([side // 3, side // 3, side // 2, side // 2], fill=(250, 240, 60))
    image.save(path)


def difference(one: Path, other: Path) -> tuple[float, float]:
    """The largest and the mean difference of two pictures, in steps of 1/255."""
    pixels = [numpy.asarray(Image.open(path).convert("RGB"), dtype=numpy.float32) for path in (one, other)]
    if pixels[0].shape != pixels[1].shape:
        return float("inf"), float("inf")
    apart = numpy.abs(pixels[0] - pixels[1])
    return float(apart.max()), float(apart.mean())
