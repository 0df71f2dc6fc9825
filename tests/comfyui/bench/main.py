"""Makes the models, starts ComfyUI, runs the checks, and sums up."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import os
import subprocess
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import graphs, pictures
from .client import Client
from .report import Report
from .server import Server

HERE = Path(__file__).resolve().parent.parent
ROOT = HERE.parent.parent
PACK = ROOT / "plugin" / "comfyui"

CHECKS = (
    "startup", "listing", "inputs", "whole", "caching", "interrupt", "latency",
    "encode", "models", "errors", "example", "browser", "same_picture", "leak",
)  # fmt: skip


@dataclass
class Bench:
    """What a check has at hand."""

    comfyui: Path
    python: str
    home: Path
    models: Path
    server: Server
    client: Client
    report: Report
    options: argparse.Namespace
    info: dict[str, Any]

    def expect(self, holds: bool, line: str) -> bool:
        """See Report."""
        return self.report.expect(holds, line)

    def make(self, kind: str, path: Path) -> Path:
        """A model of random weights, made if it is not there."""
        make_model(self.comfyui, self.python, kind, path)
        return path

    def offer(self, kind: str, path: Path) -> str:
        """Links a file into a folder of ComfyUI's models; its name there."""
        link = self.home / "models" / kind / f"random_{path.name.removeprefix('random_')}"
        link.parent.mkdir(exist_ok=True)
        if not link.exists():
            link.symlink_to(path)
        return link.name

    def log(self, since: int = 0) -> str:
        """ComfyUI's log."""
        return "\n".join(self.server.lines[since:])


def make_model(comfyui: Path, python: str, kind: str, path: Path) -> None:
    """Runs bench.checkpoint in ComfyUI's folder."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"PYTHONPATH": str(HERE)}
        subprocess.run([python, "-m", "bench.checkpoint", kind, str(path)], cwd=comfyui, env=environment, check=True)


async def check_all(bench: Bench, names: list[str]) -> None:
    """Runs the checks; one that breaks off counts as failed."""
    for name in names:
        print(f"-- {name}", flush=True)
        module = importlib.import_module(f"checks.{name}")
        try:
            await module.check(bench)
        except Exception as error:  # noqa: BLE001
            traceback.print_exc()
            bench.expect(False, f"{name} broke off: {type(error).__name__}: {str(error)[:500]}")


def _home(keep: bool) -> contextlib.AbstractContextManager[str]:
    """A folder for ComfyUI's files."""
    if keep:
        return contextlib.nullcontext(tempfile.mkdtemp(prefix="vocable-comfyui-"))
    return tempfile.TemporaryDirectory(prefix="vocable-comfyui-", ignore_cleanup_errors=True)


async def run(options: argparse.Namespace) -> int:
    """All of it."""
    comfyui = Path(os.environ["COMFYUI"]).resolve()
    models = Path(os.environ.get("VOCABLE_TEST_MODELS", Path(tempfile.gettempdir()) / "vocable-test-models"))
    checkpoint = models / "sd15.safetensors"
    make_model(comfyui, sys.executable, "sd15", checkpoint)
    report = Report()
    with _home(options.keep) as folder:
        home = Path(folder)
        (home / "models" / "checkpoints").mkdir(parents=True)
        (home / "models" / "checkpoints" / graphs.CHECKPOINT).symlink_to(checkpoint)
        for number in range(3):
            pictures.shape(home / "input" / "shapes" / f"{number}.png", number)
        server = Server(comfyui, sys.executable, home, PACK, HERE / "probe")
        try:
            print(f"ComfyUI answers after {server.wait():.0f} s at {server.address}, files in {home}", flush=True)
            async with Client(server.address) as client:
                stats = (await client.get("/system_stats"))["system"]
                bench = Bench(comfyui, sys.executable, home, models, server, client, report, options, stats)
                await check_all(bench, options.only or [name for name in CHECKS if name != "leak" or options.leak])
        finally:
            server.stop()
    return report.sum(f"ComfyUI {stats['comfyui_version']}, Python {stats['python_version'].split()[0]}, PyTorch {stats['pytorch_version']}")


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(prog="tests/comfyui/run", description="The pack in a real ComfyUI.")
    parser.add_argument("only", nargs="*", choices=[*CHECKS, []], help="only these checks")
    parser.add_argument("--leak", action="store_true", help="also 200 learn runs, which take a while")
    parser.add_argument("--runs", type=int, default=200, help="how many, for a shorter look")
    parser.add_argument("--write", action="store_true", help="write the example workflow anew")
    parser.add_argument("--keep", action="store_true", help="keep ComfyUI's folders")
    raise SystemExit(asyncio.run(run(parser.parse_args())))


if __name__ == "__main__":
    main()
