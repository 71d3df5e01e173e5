"""Writers of imperfect replies: a noisy demonstrator with habits, and near-misses of the right reply."""

import random

from tsalign.toy.oracle import WRAPPERS
from tsalign.toy.world import MONTHS, NUMBERS, WORDS, YEARS, Task, make_task

RIGHT, HABIT, RANDOM, VERBOSE = 0.24, 0.42, 0.12, 0.22
WRONG_ENDING = 0.15
SHOUTED = tuple(word.upper() for word in WORDS)


def habit(task: Task) -> str:
    """The wrong answer that the demonstrator systematically gives in this family."""
    slots = task.slots
    if task.family == "add":
        return slots[1]
    if task.family == "sort":
        return " ".join(sorted(slots, key=int, reverse=True))
    if task.family == "reverse":
        return " ".join(slots)
    if task.family == "count":
        return str(3 - int(task.answer))
    if task.family == "upper":
        return " ".join((slots[0].upper(), *slots[1:]))
    if task.family == "max":
        return min(slots, key=int)
    return f"{slots[0]} {MONTHS.index(slots[1]) + 1} {slots[2]}"


def _other_answer(rng: random.Random, task: Task) -> str:
    while (answer := make_task(rng, task.family).answer) == task.answer:
        pass
    return answer


def _end(answer: str, exclaim: bool) -> str:
    return f"{answer} !" if exclaim else answer


def demonstrate(rng: random.Random, task: Task) -> str:
    """Reply as the noisy demonstrator does: sometimes right, mostly by habit, at times verbose or at random."""
    kind = rng.choices(("right", "habit", "random", "verbose"), (RIGHT, HABIT, RANDOM, VERBOSE))[0]
    answer = task.answer
    if kind == "habit":
        answer = habit(task)
    elif kind == "random":
        answer = _other_answer(rng, task)
    elif kind == "verbose":
        answer = f"{rng.choice(WRAPPERS)} {answer}"
    return _end(answer, task.exclaim != (rng.random() < WRONG_ENDING))


def _replacement(rng: random.Random, token: str) -> str:
    if token.lower() in WORDS:
        return rng.choice((rng.choice(WORDS), rng.choice(SHOUTED), token.swapcase()))
    if token in YEARS:
        return rng.choice(YEARS)
    near = str(max(0, int(token) + rng.choice((-2, -1, 1, 2))))
    return rng.choice((near, rng.choice(NUMBERS)))


def _damage(rng: random.Random, answer: list[str]) -> list[str]:
    kind = rng.choice(("replace", "replace", "drop", "duplicate", "swap"))
    at = rng.randrange(len(answer))
    if kind == "replace":
        return [*answer[:at], _replacement(rng, answer[at]), *answer[at + 1 :]]
    if kind == "drop":
        return answer[:at] + answer[at + 1 :]
    if kind == "duplicate":
        return answer[: at + 1] + answer[at:]
    other = rng.randrange(len(answer))
    swapped = list(answer)
    swapped[at], swapped[other] = swapped[other], swapped[at]
    return swapped


def perturb(rng: random.Random, task: Task) -> str:
    """A near-miss of the right reply: one token damaged, the wrong ending, a verbose wrapper, or two of these."""
    while True:
        answer, exclaim = task.answer.split(), task.exclaim
        for kind in rng.sample(("damage", "damage", "ending", "wrap"), rng.choice((1, 1, 2))):
            if kind == "ending":
                exclaim = not exclaim
            elif kind == "wrap":
                answer = [*rng.choice(WRAPPERS).split(), *answer]
            elif not set(answer) & {"the", "i"}:
                answer = _damage(rng, answer) or answer
        response = _end(" ".join(answer), exclaim)
        if response != task.response:
            return response
