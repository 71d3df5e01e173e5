"""What a machine has and what it lacks: versions, devices, memory, ports, compiler, models, Ray; and how to fix it."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import psutil
from packaging.requirements import Requirement
from rich.markup import escape
from rich.table import Table

GIB = 1 << 30
MARKS = {"ok": "[green]✓[/]", "warn": "[yellow]![/]", "fail": "[red]✗[/]"}


@dataclass(frozen=True)
class Finding:
    """One line of the report; `fix` is what to do about it."""

    what: str
    state: Literal["ok", "warn", "fail"]
    found: str
    fix: str = ""


def examine() -> list[Finding]:
    """Check everything; this takes a few seconds and starts nothing."""
    return [
        _python(),
        *_versions(),
        *_devices(),
        _cores(),
        _memory(),
        _disk(),
        _shared_memory(),
        *_ports(),
        _compiler(),
        _models(),
        _ray(),
    ]


def findings_table(findings: list[Finding]) -> Table:
    """The findings, one per row."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for finding in findings:
        fix = f"\n[dim]{escape(finding.fix)}[/]" if finding.fix else ""
        table.add_row(MARKS[finding.state], finding.what, escape(finding.found) + fix)
    return table


def _python() -> Finding:
    found = sys.version.split()[0]
    if (3, 11) <= sys.version_info < (3, 13):
        return Finding("python", "ok", found)
    return Finding("python", "fail", found, "make install PYTHON=python3.11")


def _versions() -> Iterator[Finding]:
    """The lockstep set: what tsalign's own metadata pins with `==`."""
    pins = [Requirement(line) for line in requires("tsalign") or []]
    pins = [pin for pin in pins if any(part.operator == "==" for part in pin.specifier)]
    for pin in (pin for pin in pins if pin.marker is None):
        have = _installed(pin.name)
        good = have is not None and pin.specifier.contains(have, prereleases=True)
        fix = "" if good else f"pip install --no-deps '{pin.name}{pin.specifier}'"
        yield Finding(pin.name, "ok" if good else "fail", have or "not installed", fix)
    builds = {pin.name: (_installed(pin.name), pin) for pin in pins if pin.marker is not None}
    present = [(name, have, pin) for name, (have, pin) in builds.items() if have]
    for name, have, pin in present:
        good = pin.specifier.contains(have, prereleases=True)
        fix = "" if good else f"pip install --no-deps '{pin.name}{pin.specifier}'"
        yield Finding(name, "ok" if good else "fail", have, fix)
    if not present:
        fix = "pip install 'tsalign[gpu]' or 'tsalign[cpu]'; without vLLM, set sampling.engine=hf"
        yield Finding("vllm", "warn", "not installed", fix)


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        yield Finding("device", "ok", "CPU only")
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        yield Finding(f"GPU {index}", "ok", f"{card.name}, {card.total_memory / GIB:.0f} GiB")


def _cores() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores >= 2:
        return Finding("cores", "ok", str(cores))
    return Finding("cores", "warn", str(cores), "the quickstart needs 2; on one core it is slow")


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    found = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB available"
    if memory.available >= 4 * GIB:
        return Finding("memory", "ok", found)
    return Finding("memory", "warn", found, "the quickstart needs 4 GiB; close other programs")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    found = f"{free / GIB:.1f} GiB free in {Path.cwd()}"
    if free >= 10 * GIB:
        return Finding("disk", "ok", found)
    state: Literal["warn", "fail"] = "warn" if free >= GIB else "fail"
    return Finding("disk", state, found, "free some space, or set `storage` to a folder on a larger disk")


def _shared_memory() -> Finding:
    """Ray keeps its object store there, and falls back to slow files if it is too small."""
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return Finding("/dev/shm", "ok", "not on this system")
    size = shutil.disk_usage(folder).total
    if size >= 2 * GIB:
        return Finding("/dev/shm", "ok", f"{size / GIB:.1f} GiB")
    return Finding("/dev/shm", "warn", f"{size / GIB:.2f} GiB", "in a container: docker run --shm-size=4g")


def _ports() -> Iterator[Finding]:
    for port, use, fix in (
        (8000, "teacher service", "set teacher.port=0 to use any free port"),
        (8265, "Ray dashboard", "Ray may be running already: stop it with `ray stop`, or use it with RAY_ADDRESS=auto"),
    ):
        used = _listens("127.0.0.1", port)
        state: Literal["ok", "warn"] = "warn" if used else "ok"
        yield Finding(f"port {port}", state, f"{'used' if used else 'free'} ({use})", fix if used else "")


def _compiler() -> Finding:
    """DeepSpeed compiles its communication op for the CPU on the first start."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if compiler and header.exists():
        return Finding("compiler", "ok", compiler)
    lacks = header if compiler else "no C++ compiler"
    found = f"missing: {lacks}" if compiler else str(lacks)
    return Finding("compiler", "fail", found, "apt-get install g++ python3-dev (DeepSpeed compiles one op on CPU)")


def _models() -> Finding:
    from huggingface_hub import constants

    offline = ", offline: only these can be loaded" if constants.HF_HUB_OFFLINE else ""
    cache = Path(constants.HF_HUB_CACHE)
    count = len(list(cache.glob("models--*")))
    if offline and not count:
        return Finding(
            "models", "warn", f"{cache} is empty{offline}", "unset HF_HUB_OFFLINE, or use models in local folders"
        )
    return Finding("models", "ok", f"{count} in {cache}{offline}")


def _ray() -> Finding:
    address = os.environ.get("RAY_ADDRESS", "")
    target = urlsplit(address if "://" in address else f"//{address}")
    host, port = target.hostname or "", target.port or 0
    if not port:
        host, port = "127.0.0.1", 6379
    if _listens(host, port):
        return Finding("cluster", "ok", f"a cluster is running at {host}:{port}")
    if not address or address == "local":
        return Finding("cluster", "ok", "no cluster; tsalign starts one on this machine")
    found = f"RAY_ADDRESS={address}, but nothing answers at {host}:{port}"
    return Finding("cluster", "fail", found, "unset RAY_ADDRESS, or start the cluster: ray start --head")


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((host, port)) == 0
