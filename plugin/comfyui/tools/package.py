"""Puts the pack and the library into what people install: a zip of the folder with the library of this platform, a wheel for this platform, and the
folder for the registry, which has one for all platforms: its requirements.txt names the wheel.

    python plugin/comfyui/tools/package.py [--library FILE] [--out DIR] [--platform TAG]

The zips are unpacked into ComfyUI's `custom_nodes`. The wheel holds the same folder as the package `vocable_comfyui`, for one platform and every
Python. All are the same, byte for byte, for the same files.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import platform
import re
import sys
import sysconfig
import zipfile
from pathlib import Path

PACK = Path(__file__).resolve().parent.parent
ROOT = PACK.parent.parent
sys.path.insert(0, str(PACK.parent))

from comfyui import library  # noqa: E402  (the pack is a folder, not an installed package)

PACKAGE = library.WHEEL
# The first moment that a zip can name.
EPOCH = (1980, 1, 1, 0, 0, 0)
# Python up to 3.10 has no reader of TOML, and these three lines are all that is needed.
FIELD = r'^{}\s*=\s*"([^"]+)"$'


def field(name: str) -> str:
    """A plain text of `pyproject.toml`."""
    found = re.search(FIELD.format(name), (PACK / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    if not found:
        raise SystemExit(f"pyproject.toml: no `{name}`")
    return found[1]


def ignored() -> set[str]:
    """Names that `.comfyignore` leaves out; it holds plain names only."""
    lines = (PACK / ".comfyignore").read_text(encoding="utf-8").splitlines()
    return {line.strip().rstrip("/") for line in lines if line.strip() and not line.startswith("#")}


def platform_tag() -> str:
    """The wheel's platform: on Linux that of the C library here, which the library was linked with and PyPI asks for."""
    tag = sysconfig.get_platform().replace("-", "_").replace(".", "_").replace("universal2", platform.machine())
    libc, version = platform.libc_ver()
    return tag.replace("linux", "manylinux_" + version.replace(".", "_"), 1) if libc == "glibc" else tag


def content() -> dict[str, bytes]:
    """The folder, by its names."""
    leave = ignored() | {"bin", "__pycache__", ".comfyignore"}
    files = {}
    for path in sorted(PACK.rglob("*")):
        relative = path.relative_to(PACK)
        if path.is_file() and not leave.intersection(relative.parts):
            files[relative.as_posix()] = path.read_bytes()
    for licence in ("LICENSE-MIT", "LICENSE-APACHE", "NOTICE"):
        files[licence] = (ROOT / licence).read_bytes()
    return files


def write_zip(path: Path, files: dict[str, bytes]) -> None:
    """A zip that depends on nothing but its content."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o755 if name.endswith((".so", ".dylib", ".dll")) else 0o644) << 16
            archive.writestr(entry, data)


def wheel_files(files: dict[str, bytes], version: str, tag: str) -> dict[str, bytes]:
    """The same as a wheel."""
    info = f"{PACKAGE}-{version}.dist-info"
    made = {f"{PACKAGE}/{name}": data for name, data in files.items()}
    metadata = f"Metadata-Version: 2.1\nName: {PACKAGE.replace('_', '-')}\nVersion: {version}\nSummary: {field('description')}\n"
    metadata += f"License: MIT OR Apache-2.0\nRequires-Python: {field('requires-python')}\nDescription-Content-Type: text/markdown\n\n"
    made[f"{info}/METADATA"] = metadata.encode() + files["README.md"]
    made[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: vocable\nRoot-Is-Purelib: false\nTag: py3-none-{tag}\n".encode()
    rows = []
    for name, data in made.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(data)}")
    made[f"{info}/RECORD"] = ("\n".join([*rows, f"{info}/RECORD,,"]) + "\n").encode()
    return made


def main() -> None:
    """Builds all three."""
    parser = argparse.ArgumentParser(description="Packs the pack and its library.")
    parser.add_argument("--library", type=Path, help="the library; else the one that the pack finds")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--platform", default=platform_tag(), help="the wheel's platform tag")
    given = parser.parse_args()
    folder, binary = content(), given.library or library.find()
    version = field("version")
    given.out.mkdir(parents=True, exist_ok=True)
    registry = given.out / f"vocable-comfyui-{version}.zip"
    needs = f"{PACKAGE.replace('_', '-')}=={version}\n".encode()
    write_zip(registry, {f"vocable/{name}": data for name, data in (folder | {"requirements.txt": needs}).items()})
    files = folder | {f"bin/{binary.name}": binary.read_bytes()}
    archive = given.out / f"vocable-comfyui-{version}-{given.platform}.zip"
    write_zip(archive, {f"vocable/{name}": data for name, data in files.items()})
    wheel = given.out / f"{PACKAGE}-{version}-py3-none-{given.platform}.whl"
    write_zip(wheel, wheel_files(files, version, given.platform))
    for path in (archive, wheel, registry):
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
