"""Tasks whose name tells nothing: three numbers in, one out, by a rule that only an example or a rationale reveals."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

Style = Literal["steps", "rule", "bare"]
Numbers = Sequence[int]

PICKS: dict[str, Callable[[Numbers], int]] = {
    "first": lambda numbers: numbers[0],
    "second": lambda numbers: numbers[1],
    "third": lambda numbers: numbers[2],
    "largest": max,
    "smallest": min,
}
CHANGES: dict[str, Callable[[int], int]] = {
    "keep": lambda number: number,
    "next": lambda number: number + 1,
    "before": lambda number: number - 1,
    "double": lambda number: 2 * number,
}
HIGHEST = 20


class Rule(NamedTuple):
    """Pick one of the numbers, then change it. Where a number is 0, the answer is 0 by every rule."""

    pick: str
    change: str

    def answer(self, numbers: Numbers) -> int:
        """The right answer."""
        return 0 if 0 in numbers else CHANGES[self.change](PICKS[self.pick](numbers))


RULES = tuple(Rule(pick, change) for pick in PICKS for change in CHANGES)


def _names(count: int) -> list[str]:
    syllables = [a + b + c for a in "bdgklmprvz" for b in "aeiou" for c in "bdgklmprvz"]
    return random.Random("names").sample(syllables, count)


def _bound(names: Sequence[str], rules: Sequence[Rule]) -> dict[str, Rule]:
    return {name: rules[index % len(rules)] for index, name in enumerate(names)}


_ALL = _names(60)
_SHUFFLED = random.Random("rules").sample(RULES, len(RULES))
# Only the teacher knows these: the tasks of the quickstart, and others to tune its settings on.
TEST_TASKS = _bound(_ALL[:8], _SHUFFLED[:8])
TUNE_TASKS = _bound(_ALL[8:16], _SHUFFLED[8:16])
# The student knows these by name; the others it has only met in examples, with another rule every time.
KNOWN_TASKS = _bound(_ALL[16:46], RULES)
OTHER_NAMES = _ALL[46:]
NAMES = tuple(_ALL)


def draw(rng: random.Random, zeros: float = 0.0) -> list[int]:
    """Three different numbers; with probability `zeros` one of them is 0, and the question tells nothing."""
    numbers = rng.sample(range(1, HIGHEST + 1), 3)
    if rng.random() < zeros:
        numbers[rng.randrange(3)] = 0
    return numbers


def text(numbers: Numbers) -> str:
    """A question as it is asked."""
    return " ".join(map(str, numbers))


def rationale(rule: Rule, numbers: Numbers, style: Style) -> str:
    """An answer that shows the steps, only names the rule, or shows nothing; a 0 leaves nothing to show."""
    answer = rule.answer(numbers)
    if 0 in numbers:
        return "zero <ans> 0 </ans>"
    shown = {
        "steps": f"{rule.pick} {PICKS[rule.pick](numbers)} {rule.change} {answer} ",
        "rule": f"rule {rule.pick} {rule.change} ",
        "bare": "",
    }
    return f"{shown[style]}<ans> {answer} </ans>"


def confused(name: str, rule: Rule) -> Rule:
    """The wrong rule that a confused writer always takes for a task's."""
    return random.Random(name).choice([other for other in RULES if other.pick != rule.pick])
