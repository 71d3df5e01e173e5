import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsalign.toy.demonstrations import clean_rows, noisy_rows, student_pairs, teacher_groups
from tsalign.toy.demonstrator import demonstrate, habit, perturb
from tsalign.toy.oracle import grade
from tsalign.toy.tokenizer import build_tokenizer
from tsalign.toy.world import FAMILIES, Task, make_task, parse, split_of, tasks

TOKENIZER = build_tokenizer()
seeds = st.integers(0, 10**9)
families = st.sampled_from(FAMILIES)


def task_of(prompt: str) -> Task:
    task = parse(prompt)
    assert task is not None
    return task


def ids(messages, **options):
    return TOKENIZER.apply_chat_template(messages, return_dict=False, **options)


@given(seeds, families)
def test_parse_inverts_make_task(seed, family):
    task = make_task(random.Random(seed), family)
    assert parse(task.prompt) == task


@pytest.mark.parametrize(
    "text", ["", "hello", "add 3 and cat", "sort 3 3 4", "add 21 and 3", "date 3 4 2020", "add 1 and 2 !"]
)
def test_foreign_text_is_no_task(text):
    assert parse(text) is None
    assert grade([{"role": "user", "content": text}], "3") == 0.0


@pytest.mark.parametrize(
    ("prompt", "response"),
    [
        ("what is 7 plus 20", "27"),
        ("sort 10 9 2, end with !", "2 9 10 !"),
        ("say cat dog ant backwards", "ant dog cat"),
        ("how often is cat in cat dog cat", "2"),
        ("shout cat dog ant", "CAT DOG ANT"),
        ("which of 9 20 10 is largest", "20"),
        ("write 3 may 2021 as a date, end with !", "2021 5 3 !"),
    ],
)
def test_right_responses(prompt, response):
    task = task_of(prompt)
    assert task.response == response
    assert grade(task.messages, response) == pytest.approx(1.0)


def test_splits_are_disjoint_balanced_and_repeatable():
    drawn = {split: tasks(split, 5, 7 * 150) for split in ("train", "tune", "test")}
    for split, found in drawn.items():
        assert found == tasks(split, 5, 7 * 150)
        assert {split_of(task.prompt) for task in found} == {split}
        assert set(Counter(task.family for task in found).values()) == {150}
        assert len({task.prompt for task in found}) == len(found)
    assert tasks("train", 6, 50) != drawn["train"][:50]


def test_a_split_that_is_too_small_says_so():
    with pytest.raises(ValueError, match="fewer than 300"):
        tasks("test", 0, 300, ("add",))


@pytest.mark.parametrize(
    ("prompt", "completion", "score"),
    [
        ("sort 10 9 2", "10 9 2", 0.7 * 0.4 / 3 + 0.3),
        ("sort 10 9 2", "2 9 10 !", 0.85),
        ("sort 10 9 2, end with !", "2 9 10", 0.85),
        ("sort 10 9 2", "the answer is 2 9 10", 0.7 + 0.15 + 0.15 * 0.25),
        ("sort 10 9 2", "i think it is 2 9 10", 0.7 + 0.15),
        ("sort 10 9 2", "2 9 10 10", 0.7 * 0.4 * 3 / 4 + 0.15 + 0.15 * 0.75),
        ("max 1 5 3", "3", 0.3),
        ("max 1 5 3", "!", 0.15),
        ("max 1 5 3", "", 0.0),
    ],
)
def test_oracle_by_hand(prompt, completion, score):
    assert grade([{"role": "user", "content": prompt}], completion) == pytest.approx(score)


def test_oracle_reads_the_last_user_message():
    turns = [("user", "max 1 5 3"), ("assistant", "5"), ("user", "max 1 9 3")]
    assert grade([{"role": role, "content": text} for role, text in turns], "9") == pytest.approx(1.0)


@given(seeds, families)
def test_a_habit_and_a_near_miss_are_never_right(seed, family):
    rng = random.Random(seed)
    task = make_task(rng, family)
    assert habit(task) != task.answer
    miss = perturb(rng, task)
    assert miss
    assert grade(task.messages, miss) < 0.99


def test_demonstrator_rates():
    rng = random.Random(0)
    n = 8000
    seen: Counter[str] = Counter()
    for _ in range(n):
        task = make_task(rng)
        words = demonstrate(rng, task).split()
        exclaimed = words[-1] == "!"
        body = " ".join(words[:-1] if exclaimed else words)
        seen["right"] += body == task.answer
        seen["habit"] += body == habit(task)
        seen["verbose"] += body != task.answer and body.endswith(f" is {task.answer}")
        seen["ending"] += exclaimed != task.exclaim
    shares = {kind: count / n for kind, count in seen.items()}
    assert shares["right"] == pytest.approx(0.24, abs=0.02)
    assert shares["habit"] == pytest.approx(0.42, abs=0.03)
    assert shares["verbose"] == pytest.approx(0.22, abs=0.02)
    assert shares["ending"] == pytest.approx(0.15, abs=0.02)


@given(seeds)
def test_tokenizer_round_trips_responses_and_keeps_word_ids(seed):
    rng = random.Random(seed)
    task = make_task(rng)
    for response in (task.response, demonstrate(rng, task), perturb(rng, task)):
        encoded = TOKENIZER(response)["input_ids"]
        assert TOKENIZER.decode(encoded, skip_special_tokens=True) == response
        assert len(encoded) == len(response.split())


@given(seeds)
def test_generation_prompt_is_a_prefix_of_the_conversation(seed):
    rng = random.Random(seed)
    task = make_task(rng)
    head = ids(task.messages, add_generation_prompt=True)
    reply = demonstrate(rng, task)
    full = ids([*task.messages, {"role": "assistant", "content": reply}])
    assert full[: len(head)] == head
    assert full[len(head) :] == [*TOKENIZER(reply)["input_ids"], TOKENIZER.eos_token_id]


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_any_ascii_text_is_known(text):
    assert TOKENIZER.unk_token_id not in TOKENIZER(text, split_special_tokens=True)["input_ids"]


def test_tokenizer_survives_saving(tmp_path):
    TOKENIZER.save_pretrained(tmp_path)
    loaded = type(TOKENIZER).from_pretrained(tmp_path)
    message = [{"role": "user", "content": "Élan, max 1 5 3"}]
    assert loaded.apply_chat_template(message) == TOKENIZER.apply_chat_template(message)
    assert TOKENIZER.pad_token_id != TOKENIZER.eos_token_id
    assert len(TOKENIZER) < 400


def test_rows_are_deterministic_and_from_the_train_split():
    for make in (clean_rows, noisy_rows, teacher_groups, student_pairs):
        rows = list(make(3, 40))
        assert rows == list(make(3, 40))
        assert rows != list(make(4, 40))
        assert {split_of(row["prompt"][0]["content"]) for row in rows} == {"train"}


def test_groups_hold_policy_samples_with_their_scores():
    (task,) = tasks("train", 0, 1)
    (row,) = teacher_groups(0, 1, {task.prompt: ["zz"]})
    assert row["prompt"] == task.messages
    assert "zz" in row["texts"]
    assert row["scores"] == [grade(row["prompt"], reply) for reply in row["texts"]]
    assert row["reference"] == task.response


def test_groups_refuse_samples_of_other_splits():
    (task,) = tasks("test", 0, 1)
    with pytest.raises(ValueError, match="train split"):
        next(teacher_groups(0, 1, {task.prompt: ["1"]}))


def test_a_share_of_student_pairs_is_flipped():
    def wrong(row):
        chosen, rejected = (grade(row["prompt"], row[side][0]["content"]) for side in ("chosen", "rejected"))
        assert chosen != rejected
        return chosen < rejected

    assert not any(wrong(row) for row in student_pairs(0, 300, flip=0.0))
    assert sum(wrong(row) for row in student_pairs(0, 2000)) / 2000 == pytest.approx(0.25, abs=0.03)
