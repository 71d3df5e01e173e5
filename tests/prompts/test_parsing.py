"""Parsers of what models write: well-formed text is read, everything else is refused with its reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsalign.prompts.parsers import Unparsed, answer, axes, choice, questions, tagged

PLAIN = st.text(st.characters(blacklist_characters="<>", blacklist_categories=("Cs",)), min_size=1).filter(str.strip)


@given(PLAIN, PLAIN, PLAIN)
def test_what_is_tagged_is_found_among_other_text(before: str, inside: str, after: str) -> None:
    assert tagged(f"{before}<ans>{inside}</ans>{after}", "ans") == inside.strip()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("42", "found 0"),
        ("<ans>42", "found 0"),
        ("<ans>1</ans> or <ans>2</ans>", "found 2"),
        ("<ans>1 <ans>2</ans>", "found 1"),
        ("<ans>  </ans>", "empty"),
    ],
)
def test_an_answer_that_is_not_one_is_refused(text: str, reason: str) -> None:
    with pytest.raises(Unparsed, match=reason):
        answer(text)


def test_questions_are_read_and_malformed_ones_counted() -> None:
    text = """Here are some:
<Question_1><input>2 + 2</input><target>4</target></Question_1>
<Question_2>
  <input>two
lines</input>
  <target> B </target>
</Question_2>
<Question_3><input>no target</input></Question_3>
<Question_4><input></input><target>5</target></Question_4>
<Question_5><input>cut off"""
    made, malformed = questions(text)
    assert made == [("2 + 2", "4"), ("two\nlines", "B")]
    assert malformed == 3


def test_a_question_never_swallows_its_neighbour() -> None:
    text = "<Question_1><input>a</input><Question_2><input>b</input><target>c</target></Question_2>"
    assert questions(text) == ([("b", "c")], 1)


@pytest.mark.parametrize("text", ["A", " a", "A.", "(A)", "**A**"])
def test_a_choice_is_read_whatever_surrounds_it(text: str) -> None:
    assert choice(text, ("A", "B", "None")) == "A"


@pytest.mark.parametrize("text", ["", "A or B", "Answer: A", "C"])
def test_any_other_choice_is_refused(text: str) -> None:
    with pytest.raises(Unparsed, match="expected one of A, B"):
        choice(text, ("A", "B"))


def test_axes() -> None:
    assert axes("Depth: 7\nclarity : 3.5/10\n", ("depth", "clarity")) == {"depth": 7.0, "clarity": 3.5}


@pytest.mark.parametrize(
    ("text", "reason"),
    [("depth: 7", "clarity"), ("depth: 7\nclarity: 11", "11 is not between"), ("depth: 7\ndepth: 6", "found 2")],
)
def test_axes_that_are_missing_or_out_of_range_are_refused(text: str, reason: str) -> None:
    with pytest.raises(Unparsed, match=reason):
        axes(text, ("depth", "clarity"))
