"""`python -m tsalign.cli`: the command where no script of it is installed, as in a job that brought the package."""

from __future__ import annotations

from tsalign.cli import app

if __name__ == "__main__":
    app()
