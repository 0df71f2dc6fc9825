"""ComfyUI's folders: what the library is told of them, and the files that a list of choices offers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import folder_paths

MODEL_KINDS = ("checkpoints", "vae", "embeddings")
# How deep lists of folders go, as the library's own do.
MAX_DEPTH = 8
# Schemas are asked for several times for each graph, on the server's own thread. Walking a large folder each time would be felt: what took long is kept
# for so many times as long.
KEEP_SECONDS = 2.0
KEEP_TIMES = 30.0

_walked: dict[tuple[str, tuple[str, ...]], tuple[float, list[str]]] = {}


def folders() -> dict[str, list[str]]:
    """Folders by kind, in the order of search; the first of a kind is written to."""
    found = {kind: list(folder_paths.get_folder_paths(kind)) for kind in MODEL_KINDS}
    found["input"] = [folder_paths.get_input_directory()]
    found["output"] = [folder_paths.get_output_directory()]
    found["temp"] = [folder_paths.get_temp_directory()]
    return found


def choices(files: dict[str, Any]) -> list[str]:
    """The names that `files` of a spec means now, sorted. An extension `/` stands for every folder, `/name` for those that hold a file `name`."""
    kind, extensions = files["kind"], files["extensions"]
    endings = tuple(f".{extension.lower()}" for extension in extensions if not extension.startswith("/"))
    markers = tuple(extension[1:] for extension in extensions if extension.startswith("/"))
    names: set[str] = set()
    if endings:
        listed = folder_paths.get_filename_list(kind) if kind in MODEL_KINDS else _walk(kind, ())
        names.update(name for name in listed if name.lower().endswith(endings))
    if markers:
        names.update(_walk(kind, markers))
    return sorted(names)


def _walk(kind: str, markers: tuple[str, ...]) -> list[str]:
    """Files of a kind, or, with markers, folders that have one of them."""
    now = time.monotonic()
    until, names = _walked.get((kind, markers), (now, []))
    if now >= until:
        names = [name for root in folders().get(kind, []) for name in (_marked(root, markers) if markers else _files(root))]
        done = time.monotonic()
        _walked[(kind, markers)] = (done + max(KEEP_SECONDS, KEEP_TIMES * (done - now)), names)
    return names


def _visible(root: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """Every folder below a root as its relative name, subfolders and files; hidden ones are left out, and a link leads nowhere twice."""
    seen: set[str] = set()
    for path, dirs, files in os.walk(root, followlinks=True):
        real = os.path.realpath(path)
        if real in seen:
            dirs.clear()
            continue
        seen.add(real)
        relative = os.path.relpath(path, root)
        prefix = "" if relative == "." else relative.replace(os.sep, "/") + "/"
        dirs[:] = [] if prefix.count("/") >= MAX_DEPTH else sorted(name for name in dirs if not name.startswith("."))
        yield prefix, dirs, [name for name in files if not name.startswith(".")]


def _files(root: str) -> list[str]:
    return [prefix + name for prefix, _, files in _visible(root) for name in files]


def _marked(root: str, markers: tuple[str, ...]) -> list[str]:
    names = []
    for prefix, dirs, files in _visible(root):
        if prefix and ("" in markers or any(marker in files for marker in markers)):
            names.append(prefix[:-1])
            if "" not in markers:
                # What lies in a pipeline's folder is a part of it.
                dirs.clear()
    return names
