"""Names that become folders."""

from __future__ import annotations

import re
from typing import Annotated

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
