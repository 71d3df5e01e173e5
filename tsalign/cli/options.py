"""Arguments and options that several commands take."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[Path, typer.Argument(help="YAML file; see `configs/` for examples")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="for example tune.beta=0.2")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="name of the run, or its directory")]
Storage = Annotated[str, typer.Option(help="folder or URI where runs are stored")]
RetryFailed = Annotated[
    bool,
    typer.Option("--retry-failed", help="also ask again for rows that were answered badly"),
]
Json = Annotated[bool, typer.Option("--json", help="print only JSON")]


def _verbose(wanted: bool) -> None:
    if wanted:
        logging.getLogger("tsalign").setLevel(logging.DEBUG)


Verbose = Annotated[
    bool, typer.Option("--verbose", callback=_verbose, help="show what Ray and the workers print and log")
]


def _named(address: str | None) -> None:
    if address is not None:
        from tsalign.runs.joining import ADDRESS, check_address

        os.environ[ADDRESS] = check_address(address)


Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        callback=_named,
        help="Ray cluster to join; default: RAY_ADDRESS, else a Ray of its own",
    ),
]
