"""A real ComfyUI in a process of its own, with folders of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

START_SECONDS = 300


class Server:
    """ComfyUI on the CPU, with the pack linked into its custom_nodes, as a developer does."""

    def __init__(self, comfyui: Path, python: str, home: Path, pack: Path, probe: Path, variables: dict[str, str] | None = None) -> None:
        self.home, self.port = home, _free_port()
        for folder in (
            "custom_nodes",
            "models/checkpoints",
            "models/embeddings",
            "models/loras",
            "models/text_encoders",
            "input",
            "output",
            "temp",
            "user",
        ):
            (home / folder).mkdir(parents=True, exist_ok=True)
        for target in (pack, probe):
            link = home / "custom_nodes" / ("vocable" if target == pack else target.name)
            if not link.exists():
                link.symlink_to(target, target_is_directory=True)
        command = [python, "main.py", "--cpu", "--base-directory", str(home), "--port", str(self.port), "--disable-auto-launch"]
        environment = os.environ | {"PYTHONUNBUFFERED": "1"} | (variables or {})
        self.process = subprocess.Popen(
            command,
            cwd=comfyui,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def _read(self) -> None:
        with open(self.home / "comfyui.log", "a", encoding="utf-8") as log:
            for line in self.process.stdout or ():
                self.lines.append(line.rstrip("\n"))
                log.write(line)
                log.flush()

    def wait(self) -> float:
        """Waits until it answers; says how long that took."""
        started = time.monotonic()
        while time.monotonic() - started < START_SECONDS:
            if self.process.poll() is not None:
                raise RuntimeError("ComfyUI ended at once:\n" + "\n".join(self.lines[-30:]))
            try:
                with urllib.request.urlopen(f"http://{self.address}/system_stats", timeout=2):
                    return time.monotonic() - started
            except OSError:
                time.sleep(0.3)
        raise RuntimeError("ComfyUI did not start:\n" + "\n".join(self.lines[-30:]))

    def stop(self) -> None:
        """Ends it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self._reader.join(5)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
