"""The `tsalign` command. Results go to stdout, progress and errors to stderr; heavy imports wait until needed."""

from __future__ import annotations

import os

# A stage that is cut off when its Ray ends must not start another. Ray reads this when it is imported.
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"

# Each module adds its commands to `app`, in the order of `tsalign --help`.
from tsalign.cli import running, evaluation, looking, jobs, teacher, cluster, toy  # isort: skip
from tsalign.cli.terminal import app

__all__ = ["app", "cluster", "evaluation", "jobs", "looking", "running", "teacher", "toy"]
