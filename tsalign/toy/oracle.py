"""The judge of the toy world. It measures win rates; no model ever sees it while aligning."""

from collections.abc import Mapping, Sequence

from tsalign.toy.world import parse

WRAPPERS = ("the answer is", "i think it is")


def grade(prompt: Sequence[Mapping[str, str]], completion: str) -> float:
    """Score a completion in [0, 1]: 0.7 for the answer, 0.15 for the right ending, 0.15 for brevity."""
    question = next((turn["content"] for turn in reversed(prompt) if turn["role"] == "user"), "")
    task = parse(question)
    words = completion.split()
    if task is None or not words:
        return 0.0
    exclaimed = words[-1] == "!"
    body = " ".join(words[:-1] if exclaimed else words)
    bare = body
    for wrapper in WRAPPERS:
        bare = bare.removeprefix(f"{wrapper} ")
    wanted, given = task.answer.split(), bare.split()
    hits = sum(left == right for left, right in zip(wanted, given))
    answer = 1.0 if given == wanted else 0.4 * hits / max(len(wanted), len(given), 1)
    brevity = max(0.0, 1.0 - 0.25 * max(0, len(body.split()) - len(wanted)))
    return 0.7 * answer + 0.15 * (exclaimed == task.exclaim) + 0.15 * brevity
