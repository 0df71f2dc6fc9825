"""Where the library is.

Searched in this order, the first that exists wins: the file that the variable VOCABLE_LIBRARY names; `bin/` of this folder, as in a
released pack; `bin/` of the wheel `vocable-comfyui`, if it is installed; `target/release` and `target/debug` of the repository that this folder
lies in, also when it is reached by a symbolic link.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

VARIABLE = "VOCABLE_LIBRARY"
WHEEL = "vocable_comfyui"
HERE = Path(__file__).resolve().parent


class LibraryMissing(RuntimeError):
    """There is no library; the text says where it was looked for and what to do."""


def file_name(platform: str = sys.platform) -> str:
    """The name of the library's file on a platform."""
    if platform in ("win32", "cygwin"):
        return "vocable_plugin.dll"
    return "libvocable_plugin.dylib" if platform == "darwin" else "libvocable_plugin.so"


def candidates() -> list[Path]:
    """All places, in the order of search."""
    given = os.environ.get(VARIABLE)
    if given:
        # Only this one: who names a file does not want another.
        return [Path(given).expanduser()]
    name = file_name()
    places = [HERE / "bin" / name]
    wheel = importlib.util.find_spec(WHEEL)
    if wheel and wheel.origin:
        places.append(Path(wheel.origin).parent / "bin" / name)
    repository = HERE.parent.parent
    if (repository / "Cargo.toml").is_file():
        target = Path(os.environ.get("CARGO_TARGET_DIR", repository / "target"))
        places += [target / kind / name for kind in ("release", "debug")]
    return places


def find() -> Path:
    """The library's file."""
    places = candidates()
    for place in places:
        if place.is_file():
            return place
    raise LibraryMissing(explanation(places))


def explanation(places: list[Path]) -> str:
    """What to tell when there is no library."""
    looked = "\n".join(f"  {place}" for place in places)
    return (
        f"Vocable's library was not found. Looked for:\n{looked}\n"
        "Install the pack for this platform from the registry or from a release, or build the library with "
        "`cargo build --release -p vocable-plugin` in the repository that this folder belongs to, "
        f"or name the file in the environment variable {VARIABLE}. Then start ComfyUI again."
    )
