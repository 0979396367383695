"""What the learner reported, one JSON line each, in a file that never outgrows its bound: the past is thinned, not forgotten."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAME = "history.jsonl"
MOST_LINES = 2000
"""About four megabytes, and a point for every two pixels of a wide plot. At one a second the whole of an hour at first."""


class History:
    """Appends to `folder`/history.jsonl. When full, every second line is left out."""

    def __init__(self, folder: Path, most_lines: int = MOST_LINES) -> None:
        self._path, self._most = folder / NAME, most_lines
        self._lines = len(read(folder))
        self._every, self._skipped = 1, 0

    def append(self, record: Mapping[str, Any]) -> None:
        """Note one report; after each thinning only every second, fourth, ... is written. Raises OSError."""
        self._skipped += 1
        if self._skipped < self._every:
            return
        self._skipped = 0
        if self._lines >= self._most:
            self._thin()
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(_short(record)) + "\n")
        self._lines += 1

    def _thin(self) -> None:
        kept = read(self._path.parent)[::2]
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
        os.replace(temporary, self._path)
        self._lines, self._every = len(kept), self._every * 2


def _short(value: Any) -> Any:
    """Six digits are more than a curve shows."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {name: _short(inner) for name, inner in value.items()}
    return value


def read(folder: Path) -> list[dict[str, Any]]:
    """The records, oldest first; none when there is no file. Lines that a killed writer tore are left out."""
    try:
        lines = (folder / NAME).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("agents"), dict):
            found.append(record)
    return found
