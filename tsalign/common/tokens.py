"""Bearer tokens: read from the environment, checked once, and carried so that no text shows them."""

from __future__ import annotations

import os

from pydantic import SecretStr

from tsalign.common.errors import TsalignError


def token_from(variable: str) -> SecretStr | None:
    """The token in an environment variable, without white space around it; None where it is unset or empty.

    Raises:
        TsalignError: it cannot stand in an HTTP header; the message names the variable and not the value.
    """
    value = os.environ.get(variable, "").strip()
    if not all("!" <= character <= "~" for character in value):
        raise TsalignError(
            f"{variable}: the token in this environment variable cannot be sent in an HTTP header; "
            "expected printable ASCII characters without spaces."
        )
    return SecretStr(value) if value else None
