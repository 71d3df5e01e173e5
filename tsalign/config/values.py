"""Values that a plain type does not describe: names that become folders, URLs, shares of GPUs."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

LONGEST = 128


def run_name(name: str) -> str:
    """`name` itself, where it can name a run: a folder that lies in the storage folder, whatever the name is.

    Raises:
        ValueError: it starts with a dot or a dash, holds anything but letters, digits, `.`, `_`, `-`, or is too long.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or len(name) > LONGEST:
        raise ValueError(
            f"expected letters, digits, '.', '_' and '-', the first a letter or a digit, at most {LONGEST} characters"
        )
    return name


RunName = Annotated[str, AfterValidator(run_name)]


def http_url(url: str) -> str:
    """`url` itself, where requests can be sent to it.

    Raises:
        ValueError: no http, no host, a port that is none, or white space in it.
    """
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        whole = False
    if not whole or re.search(r"\s", url):
        raise ValueError("expected a URL such as http://host:8000/v1 or https://host/v1")
    return url


Url = Annotated[str, AfterValidator(http_url)]


def gpus(number: float) -> float:
    """`number` itself, where Ray can give an actor so many GPUs.

    Raises:
        ValueError: a share of several GPUs.
    """
    if number > 1 and number != int(number):
        raise ValueError("expected a share of one GPU, up to 1, or a whole number of GPUs")
    return number


Gpus = Annotated[float, AfterValidator(gpus)]


def node(wanted: str | dict[str, str]) -> str | dict[str, str]:
    """`wanted` itself, where it can name nodes: a custom resource that they have, or labels.

    Raises:
        ValueError: it is empty, or the name of a resource that every node has.
    """
    if not wanted or wanted in ("CPU", "GPU", "memory", "object_store_memory"):
        raise ValueError("expected the name of a custom resource that only these nodes have, or labels: {key: value}")
    return wanted


Node = Annotated[str | dict[str, str], AfterValidator(node)]
