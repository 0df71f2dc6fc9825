"""What was checked, a line for each."""

from __future__ import annotations

import time


class Report:
    """Prints each check as it is made, and the sum at the end."""

    def __init__(self) -> None:
        self.good: list[str] = []
        self.bad: list[str] = []
        self.skipped: list[str] = []
        self._started = time.monotonic()

    def expect(self, holds: bool, line: str) -> bool:
        """One check."""
        (self.good if holds else self.bad).append(line)
        print(f"{'ok  ' if holds else 'FAIL'}  {line}", flush=True)
        return holds

    def skip(self, line: str) -> None:
        """One that was not made, and why."""
        self.skipped.append(line)
        print(f"SKIPPED: {line}", flush=True)

    def note(self, line: str) -> None:
        """A figure that nothing is expected of."""
        print(f"      {line}", flush=True)

    def sum(self, versions: str) -> int:
        """The last lines; 1 if something failed."""
        for line in self.bad:
            print(f"FAILED  {line}")
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        print(f"{len(self.good)} checks passed, {len(self.bad)} failed{skipped}, in {time.monotonic() - self._started:.0f} s; {versions}")
        return 1 if self.bad else 0
