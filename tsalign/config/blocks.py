"""The blocks of keys that an annotation allows; a union has one for each choice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, Tag

CHOOSES = "objective"  # the key that discriminates where a union's blocks have no tag


def blocks(annotation: Any) -> dict[str, type[BaseModel]]:
    """The blocks of an annotation by the names that pydantic's errors give them: tag, objective, or class."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        chooses = annotation.model_fields.get(CHOOSES)
        names = get_args(chooses.annotation) if chooses else ()
        return dict.fromkeys(names or (annotation.__name__,), annotation)
    inner = {name: block for argument in get_args(annotation) for name, block in blocks(argument).items()}
    tags = [meta.tag for meta in getattr(annotation, "__metadata__", ()) if isinstance(meta, Tag)]
    return dict.fromkeys(tags, *inner.values()) if tags else inner


def leaves(annotation: Any) -> Iterator[Any]:
    """The types, and values of a `Literal`, that an annotation is made of."""
    inner = get_args(annotation)
    if not inner:
        yield annotation
    for part in inner:
        yield from leaves(part)
