"""The tasks of the toy world: seven families of short word-level problems, each with one right answer."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

Split = Literal["train", "tune", "test"]
Slots = tuple[str, ...]

_WORDS = "ant bee box cat cow cup dog egg fan fig fox hat hen jar key map oak owl pig sun"
_MONTHS = "january february march april may june july august september october november december"
WORDS = tuple(_WORDS.split())
MONTHS = tuple(_MONTHS.split())
NUMBERS = tuple(str(number) for number in range(1, 21))
DAYS = tuple(str(day) for day in range(1, 29))
YEARS = tuple(str(year) for year in range(2015, 2025))
TEMPLATES: dict[str, tuple[str, str]] = {
    "add": ("add {} and {}", "what is {} plus {}"),
    "sort": ("sort {} {} {}", "put {} {} {} in order"),
    "reverse": ("reverse {} {} {}", "say {} {} {} backwards"),
    "count": ("count {} in {} {} {}", "how often is {} in {} {} {}"),
    "upper": ("upper {} {} {}", "shout {} {} {}"),
    "max": ("max {} {} {}", "which of {} {} {} is largest"),
    "date": ("date {} {} {}", "write {} {} {} as a date"),
}
FAMILIES: tuple[str, ...] = tuple(TEMPLATES)
EXCLAIM = ", end with !"
EXCLAIM_SHARE = 0.3

_PATTERNS = [
    (family, re.compile(template.replace("{}", r"(\w+)")))
    for family, templates in TEMPLATES.items()
    for template in templates
]


@dataclass(frozen=True)
class Task:
    """One problem; `answer` is the bare answer, `response` the full right reply with its ending."""

    family: str
    prompt: str
    answer: str
    exclaim: bool
    slots: Slots

    @property
    def response(self) -> str:
        """The right reply to the prompt."""
        return f"{self.answer} !" if self.exclaim else self.answer

    @property
    def messages(self) -> list[dict[str, str]]:
        """The prompt in conversational form."""
        return [{"role": "user", "content": self.prompt}]


def _draw_add(rng: random.Random) -> Slots:
    return rng.choice(NUMBERS), rng.choice(NUMBERS)


def _draw_numbers(rng: random.Random) -> Slots:
    return tuple(rng.sample(NUMBERS, 3))


def _draw_words(rng: random.Random) -> Slots:
    return tuple(rng.sample(WORDS, 3))


def _draw_count(rng: random.Random) -> Slots:
    wanted, *others = rng.sample(WORDS, 4)
    hits = rng.randint(0, 3)
    shown = [wanted] * hits + others[hits:]
    rng.shuffle(shown)
    return wanted, *shown


def _draw_date(rng: random.Random) -> Slots:
    return rng.choice(DAYS), rng.choice(MONTHS), rng.choice(YEARS)


_DRAW: dict[str, Callable[[random.Random], Slots]] = {
    "add": _draw_add,
    "sort": _draw_numbers,
    "reverse": _draw_words,
    "count": _draw_count,
    "upper": _draw_words,
    "max": _draw_numbers,
    "date": _draw_date,
}


def _valid(family: str, slots: Slots) -> bool:
    if family == "add":
        return set(slots) <= set(NUMBERS)
    if family in ("sort", "max"):
        return set(slots) <= set(NUMBERS) and len(set(slots)) == 3
    if family == "date":
        return slots[0] in DAYS and slots[1] in MONTHS and slots[2] in YEARS
    if family == "count":
        others = [word for word in slots[1:] if word != slots[0]]
        return set(slots) <= set(WORDS) and len(set(others)) == len(others)
    return set(slots) <= set(WORDS) and len(set(slots)) == 3


def solve(family: str, slots: Slots) -> str:
    """The right answer of a family for the values in its prompt."""
    if family == "add":
        return str(int(slots[0]) + int(slots[1]))
    if family == "sort":
        return " ".join(sorted(slots, key=int))
    if family == "reverse":
        return " ".join(reversed(slots))
    if family == "count":
        return str(slots[1:].count(slots[0]))
    if family == "upper":
        return " ".join(slots).upper()
    if family == "max":
        return max(slots, key=int)
    day, month, year = slots
    return f"{year} {MONTHS.index(month) + 1} {day}"


def make_task(rng: random.Random, family: str | None = None) -> Task:
    """Draw one task, of the given family or of any."""
    family = family or rng.choice(FAMILIES)
    slots = _DRAW[family](rng)
    exclaim = rng.random() < EXCLAIM_SHARE
    prompt = rng.choice(TEMPLATES[family]).format(*slots) + EXCLAIM * exclaim
    return Task(family, prompt, solve(family, slots), exclaim, slots)


def parse(prompt: str) -> Task | None:
    """Recover the task from its prompt alone; None when the text is not of this world."""
    body = prompt.removesuffix(EXCLAIM)
    for family, pattern in _PATTERNS:
        match = pattern.fullmatch(body)
        if match and _valid(family, match.groups()):
            return Task(family, prompt, solve(family, match.groups()), body != prompt, match.groups())
    return None


def split_of(prompt: str) -> Split:
    """The split a prompt belongs to, by its hash: one eighth test, one eighth tune, the rest train."""
    eighth = blake2b(prompt.encode(), digest_size=8).digest()[0] % 8
    return "test" if eighth == 0 else "tune" if eighth == 1 else "train"


def tasks(split: Split, seed: int, n: int, families: tuple[str, ...] = FAMILIES) -> list[Task]:
    """Return n tasks with distinct prompts of one split, the families taking turns."""
    rng = random.Random(f"{split}-{seed}")
    seen: set[str] = set()
    found: list[Task] = []
    tries = 0
    while len(found) < n:
        task = make_task(rng, families[len(found) % len(families)])
        tries += 1
        if tries > 1000 * (n + 10):
            raise ValueError(f"the {split} split has fewer than {n} distinct prompts of {families}")
        if task.prompt not in seen and split_of(task.prompt) == split:
            seen.add(task.prompt)
            found.append(task)
    return found
