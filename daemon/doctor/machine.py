"""The machine and what is installed on it."""

import os
import platform
import resource
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from daemon.doctor.findings import FAIL, OK, WARN, Finding, guarded, size

PACKAGES = ("ccxt", "numpy", "torch", "sqlalchemy", "clarabel")
NEEDED_MEMORY = 2_000_000_000
"""Bytes: trading process 0.4, learner with PyTorch 0.7, rehearsal exchange 0.3, and room to breathe."""
NEEDED_FILES = 256


def examine() -> list[Finding]:
    """Cores, memory, open files, versions."""
    return [guarded(name, check) for name, check in (("machine", _machine), ("open_files", _open_files), ("versions", _versions))]


def _machine() -> Finding:
    cores = len(os.sched_getaffinity(0))
    memory = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in Path("/proc/meminfo").read_text().splitlines()}
    available, load = memory.get("MemAvailable", 0), os.getloadavg()[0]
    said = f"{cores} cores (load {load:.1f}), {size(available)} of {size(memory['MemTotal'])} memory available, {platform.machine()}"
    if available < NEEDED_MEMORY:
        return Finding("machine", WARN, said, f"free memory: a session with its learner takes up to {size(NEEDED_MEMORY)}")
    if cores < 2 or load > 2 * cores:
        return Finding("machine", WARN, said, "give the daemon two cores of its own, or decisions wait for the learner and for others")
    return Finding("machine", OK, said)


def _open_files() -> Finding:
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    said = "unlimited" if allowed == resource.RLIM_INFINITY else f"{allowed} may be open at a time"
    if allowed != resource.RLIM_INFINITY and allowed < NEEDED_FILES:
        return Finding("open_files", WARN, said, f"raise the limit to at least {NEEDED_FILES} (ulimit -n, or LimitNOFILE= of a service)")
    return Finding("open_files", OK, said)


def _versions() -> Finding:
    python = platform.python_version()
    found, missing = [f"Python {python}"], []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    said = ", ".join(found)
    if missing:
        return Finding("versions", FAIL, f"{said}; not installed: {', '.join(missing)}", "run `make setup`")
    return Finding("versions", OK, said)
