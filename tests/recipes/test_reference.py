"""docs/config.md holds what the config models say, and they say something about every key."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, Field

from tsalign.config import ConfigModel, ServeConfig
from tsalign.evaluation import procedures
from tsalign.recipes import RECIPES, find
from tsalign.recipes.reference import page, reachable, section

PAGE = Path(__file__).parents[2] / "docs" / "config.md"
TOPS = [
    *(find(name).config_type for name in RECIPES),
    *(procedures.find(name).config_type for name in procedures.PROCEDURES),
    ServeConfig,
]


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run `make docs`"


def test_every_link_leads_to_a_section() -> None:
    titles = {line.lstrip("# ").lower() for line in page().splitlines() if line.startswith("###")}
    links = {part.partition(")")[0] for part in page().split("](#")[1:]}
    assert links <= titles


@pytest.mark.parametrize("block", dict.fromkeys(block for top in TOPS for block in reachable(top)), ids=str)
def test_every_key_is_described_in_sentences(block: type[BaseModel]) -> None:
    for name, field in block.model_fields.items():
        assert (field.description or "").endswith("."), f"{block.__name__}.{name} has no description"


def test_bounds_defaults_and_missing_values() -> None:
    class Example(ConfigModel):
        """An example."""

        share: float = Field(0.5, gt=0, le=1, description="A share.")
        name: str | None = Field(None, description="A | name.")
        sizes: tuple[int, ...] = Field(min_length=1, description="Sizes.")

    assert section("## Example", Example).splitlines()[-3:] == [
        "| `share` | float | `0.5` | > 0, ≤ 1 | A share. |",
        "| `name` | str | None |  | A \\| name. |",
        "| `sizes` | list of int | required | at least 1 | Sizes. |",
    ]
