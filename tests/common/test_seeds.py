"""Seeds are what they were when the published numbers were made, in every process, and no two names share one."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from tsalign.common.seeds import derive, fraction

PARTS = st.lists(
    st.one_of(st.integers(), st.text(st.characters(codec="utf-8", exclude_characters="\x1f"))), min_size=1, max_size=4
)


def test_seeds_never_change() -> None:
    assert derive(0, 1, "prompt", 3) == 8163108983361090548
    assert fraction("prompt", "share") == derive("prompt", "share") / 2**63


def test_seeds_do_not_depend_on_the_process() -> None:
    code = "from tsalign.common.seeds import derive; print(derive('a', 7))"
    command = [sys.executable, "-c", code]
    printed = {
        subprocess.run(command, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True).stdout
        for seed in ("1", "2")
    }
    assert printed == {f"{derive('a', 7)}\n"}


@given(PARTS, PARTS)
def test_different_parts_have_different_seeds(one: list[str | int], other: list[str | int]) -> None:
    same = [str(part) for part in one] == [str(part) for part in other]
    assert (derive(*one) == derive(*other)) == same
    assert 0 <= derive(*one) < 2**63


def test_shares_are_spread_evenly() -> None:
    drawn = sorted(fraction(index, "x") for index in range(2000))
    assert 0 <= drawn[0] < drawn[-1] < 1
    assert max(abs(value - rank / 2000) for rank, value in enumerate(drawn)) < 0.05
