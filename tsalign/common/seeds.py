"""Seeds and shares derived from names, so that no two actors share one by accident and every run is reproducible."""

from __future__ import annotations

import hashlib


def derive(*parts: str | int) -> int:
    """A 63-bit seed from the hash of its parts."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def fraction(*parts: str | int) -> float:
    """A number in [0, 1) from the hash of its parts."""
    return derive(*parts) / 2**63
