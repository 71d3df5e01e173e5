"""Prompt files to shards: formats, errors, quarantine, order, splits and portions."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.config import DataConfig, EvaluationConfig, ResourceConfig
from tsalign.data.prompts import load_evaluation, load_prompts, portion
from tsalign.data.shards import iterate, read_counts
from tsalign.data.sources import BadRow, Record, expand, to_messages
from tsalign.runs.artifacts import Dataset, Model
from tsalign.runs.stage import Stage
from tsalign.toy.tokenizer import build_tokenizer
from tsalign.toy.world import FAMILIES, split_of

Rows = list[dict[str, Any]]
WORDS = ["ant", "bag", "bed", "bee", "box", "cat", "cow", "cup", "dog", "ear", "egg", "fan", "hat", "ink", "jar"]


@pytest.fixture(scope="session")
def policy(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("policy")
    build_tokenizer().save_pretrained(folder)
    return Model(str(folder), "policy")


class Loader:
    """Loads prompts in a folder; `counts` is what the last stage logged."""

    def __init__(self, folder: Path, policy: Model, seed: int = 0) -> None:
        self.folder, self.policy, self.seed = folder, policy, seed
        self.counts: dict[str, int] = {}

    def stage(self, name: str) -> Stage:
        out, quarantine = UPath(self.folder / name), UPath(self.folder / "quarantine" / name)
        work = UPath(self.folder / "work")
        return Stage("run", name, 0, name, self.seed, out, work, quarantine, ResourceConfig(), self.counts.update)

    def __call__(self, prompts: str | list[str], sets: dict[str, str] | None = None, **data: Any) -> Dataset:
        self.counts.clear()
        return load_prompts(self.stage("prompts"), DataConfig(prompts=prompts, **data), sets or {}, self.policy)

    def evaluation(self, prompts: str | list[str], sets: dict[str, str], per_set: int = 200, **data: Any) -> Dataset:
        self.counts.clear()
        config = DataConfig(prompts=prompts, **data)
        evaluation = EvaluationConfig(judge="j:j", sets=sets, prompts_per_set=per_set)
        return load_evaluation(self.stage("held_out"), config, evaluation, self.policy)

    def quarantined(self, name: str) -> Rows:
        lines = (self.folder / "quarantine" / name).read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture
def load(tmp_path: Path, policy: Model) -> Loader:
    return Loader(tmp_path, policy)


def jsonl(path: Path, rows: Iterable[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def rows_of(dataset: Dataset) -> Rows:
    return list(iterate([dataset]))


def texts(dataset: Dataset) -> list[str]:
    return [row["prompt"][-1]["content"] for row in rows_of(dataset)]


def record(row: Any) -> Record:
    return Record("f", 1, "f", row)


def test_every_format_gives_the_same_prompts(load: Loader, tmp_path: Path) -> None:
    rows: Rows = [{"prompt": f"upper {word} cat dog", "note": 1} for word in WORDS]
    plain = jsonl(tmp_path / "a.jsonl", rows)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(Path(plain).read_bytes()))
    (tmp_path / "a.json").write_text(json.dumps(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    expected = rows_of(load(plain))
    assert len(expected) == len(WORDS)
    assert set(expected[0]) == {"prompt_id", "set", "prompt", "prompt_ids"}
    assert build_tokenizer().decode(expected[0]["prompt_ids"]) == f"<bos> <user> {texts(load(plain))[0]} <assistant>"
    for name in ("a.jsonl.gz", "a.json", "a.parquet"):
        assert rows_of(load(str(tmp_path / name))) == expected


def test_instruction_and_input_are_joined(load: Loader, tmp_path: Path) -> None:
    (tmp_path / "alpaca.json").write_text(
        json.dumps(
            [
                {"instruction": "Rewrite it.", "input": "He go home.", "output": "He goes home."},
                {"instruction": "Name a bird.", "input": "", "output": "A wren."},
            ]
        )
    )
    found = load(str(tmp_path / "alpaca.json"))
    assert set(texts(found)) == {"Rewrite it.\n\nHe go home.", "Name a bird."}
    assert {row["set"] for row in rows_of(found)} == {"alpaca"}


def test_conversations() -> None:
    turns = [{"role": role, "content": role} for role in ("system", "user", "assistant", "user", "assistant")]
    assert to_messages(record({"messages": turns}), None) == turns[:4]
    assert to_messages(record({"prompt": turns[:2]}), "other") == turns[:2]
    assert to_messages(record({"prompt": "hi"}), "be kind") == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "hi"},
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (["hi"], "expected an object, got list"),
        ({"prompt": None}, "has none of the columns prompt, messages, instruction"),
        ({"prompt": "  "}, "prompt is empty"),
        ({"prompt": 3}, "prompt must be a non-empty list of messages"),
        ({"messages": "hi"}, "messages must be a non-empty list of messages"),
        ({"messages": []}, "messages must be a non-empty list of messages"),
        ({"instruction": ["hi"]}, "instruction must be text, got list"),
        ({"instruction": "hi", "input": 3}, "input must be text, got int"),
        ({"prompt": "\ud800"}, "prompt is not valid Unicode"),
        ({"prompt": [{"from": "human", "value": "hi"}]}, r"prompt\[0\] must have role and content"),
        ({"prompt": [{"role": "tool", "content": "hi"}]}, r"prompt\[0\]: unknown role 'tool'"),
        ({"prompt": [{"role": ["user"], "content": "hi"}]}, "unknown role"),
        ({"prompt": [{"role": "user", "content": None}]}, r"prompt\[0\]\.content must be text, got NoneType"),
        ({"messages": [{"role": "assistant", "content": "hi"}]}, "messages must end with a user turn"),
        ({"messages": [{"role": "system", "content": "hi"}]}, "messages must end with a user turn"),
        (
            {"prompt": [{"role": "user", "content": "hi"}, {"role": "system", "content": "hi"}]},
            r"prompt\[1\]: a system message must come first",
        ),
    ],
)
def test_reasons(row: Any, reason: str) -> None:
    with pytest.raises(BadRow, match=reason):
        to_messages(record(row), None)


def test_quarantine_says_what_where_and_why(load: Loader, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    lines = [
        b'{"prompt": "add 1 and 2"}',
        b"",
        b'{"prompt": "add 1',
        b'{"prompt": "\xff"}',
        b"[" * 100_000,
        b'{"prompt": ""}',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "' + b"cat " * 400 + b'"}',
        b'{"prompt": "add 1 and 2"}',
    ]
    path.write_bytes(b"\n".join(lines))
    found = load(str(path), max_prompt_tokens=100, max_bad_fraction=0.9)
    assert texts(found) == ["add 1 and 2"]
    assert load.counts == {"read": 8, "kept": 1, "duplicates": 1, "too_long": 1, "bad": 5}
    rejected = load.quarantined("prompts/in.jsonl.jsonl")
    assert {row["file"] for row in rejected} == {str(path)}
    assert [(row["line"], row["reason"]) for row in rejected] == [
        (3, "not JSON: Unterminated string starting at, column 12"),
        (4, "not UTF-8"),
        (5, "not JSON: nested too deeply"),
        (6, "prompt is empty"),
        (7, "prompt is not valid Unicode"),
        (8, "403 tokens, more than data.max_prompt_tokens = 100"),
    ]
    assert rejected[0]["row"] == '{"prompt": "add 1'
    assert max(len(row["row"]) for row in rejected) == 500


def test_too_many_bad_rows(load: Loader, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "in.jsonl", [{"prompt": "hi"}, {"prompt": ""}, 3, {"prompt": 3}, {"prompt": []}])
    with pytest.raises(TsalignError) as caught:
        load(path, max_bad_fraction=0.1)
    message = str(caught.value)
    assert message.startswith("4 of 5 rows")
    assert "data.max_bad_fraction = 0.1" in message
    assert str(tmp_path / "quarantine" / "prompts") in message
    assert message.count(f"{path}:") == 3
    assert f"{path}:2: prompt is empty" in message
    assert len(load.quarantined("prompts/in.jsonl.jsonl")) == 4


def test_refused_system_message_is_a_bad_row(load: Loader, tmp_path: Path) -> None:
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}x"
    load.policy = Model(load.policy.path, "x", chat_template=template)
    with pytest.raises(TsalignError, match=r"in\.jsonl:1: chat_template: cannot render.*no system"):
        load(jsonl(tmp_path / "in.jsonl", [{"prompt": "hi"}]), system="be kind")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.jsonl", b'{"question": "hi", "answer": 3}\n', r"q\.jsonl: no column with.*found question, answer"),
        ("q.json", b'{"prompt": "hi"}', r"q\.json: cannot be read as \.json: expected an array of objects, got dict"),
        ("q.json", b'{"prompt": "a"}\n{"prompt": "b"}', r"Extra data.*name a file with one object per line \.jsonl"),
        ("q.parquet", b"PAR1 not really", r"q\.parquet: cannot be read as \.parquet"),
        ("q.jsonl.gz", b"not gzip", r"q\.jsonl\.gz: cannot be read as \.jsonl"),
        ("q.jsonl.gz", gzip.compress(b'{"prompt": "hi"}\n' * 999)[:-20], r"q\.jsonl\.gz: cannot be read"),
        ("q.csv", b"prompt\nhi\n", r"q\.csv: unknown format"),
        ("q.jsonl", b"", r"no prompts left for training \(read 0"),
    ],
)
def test_file_errors(load: Loader, tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TsalignError, match=message) as caught:
        load(str(tmp_path / name))
    assert type(caught.value) is TsalignError
    assert "Traceback" not in str(caught.value)


def test_parquet_without_a_prompt_column_shows_its_columns(load: Loader, tmp_path: Path) -> None:
    pq.write_table(pa.table({"question": ["hi"], "chosen": ["a"]}), tmp_path / "q.parquet")
    with pytest.raises(TsalignError, match="found question, chosen"):
        load(str(tmp_path / "q.parquet"))


def test_locations(load: Loader, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    for name in ("b.jsonl", "a.json", "deep/c.jsonl", "README.md", ".d.jsonl"):
        (folder / name).write_text("[]")
    assert [path.name for path in expand(str(folder))] == ["a.json", "b.jsonl"]
    assert [path.name for path in expand(f"{folder}/*/*.jsonl")] == ["c.jsonl"]
    assert [path.name for path in expand(f"{folder}/**/*.jsonl")] == [".d.jsonl", "b.jsonl", "c.jsonl"]
    for missing in (f"{folder}/x.jsonl", f"{folder}/*.parquet", str(tmp_path)):
        with pytest.raises(TsalignError, match="no prompt file found"):
            expand(missing)
    with pytest.raises(TsalignError, match="toy:nope: no such rows"):
        load("toy:nope")


def test_any_filesystem() -> None:
    UPath("memory://bucket/in").mkdir(parents=True)
    UPath("memory://bucket/in/a.jsonl").write_text("{}")
    assert [path.name for path in expand("memory://bucket/in/*.jsonl")] == ["a.jsonl"]


def test_relative_paths(load: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jsonl(tmp_path / "in.jsonl", [{"prompt": "hi"}])
    monkeypatch.chdir(tmp_path)
    assert texts(load("in.jsonl")) == ["hi"]


@settings(max_examples=10, deadline=None)
@given(
    chosen=st.lists(st.sampled_from(WORDS), min_size=1, max_size=30),
    cut=st.integers(0, 30),
    shuffle=st.randoms(),
    seed=st.integers(0, 3),
)
def test_order_depends_on_content_and_seed_alone(
    policy: Model, chosen: list[str], cut: int, shuffle: Any, seed: int
) -> None:
    rows: Rows = [{"prompt": word} for word in chosen]
    mixed = shuffle.sample(rows, len(rows))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one, a, b = (folder / f"{n}.jsonl" for n in ("one", "a", "b"))
        load = Loader(folder, policy, seed)
        first = texts(load(jsonl(one, rows)))
        assert load.counts["duplicates"] == len(rows) - len(set(chosen))
        second = load([jsonl(b, mixed[cut:]), jsonl(a, mixed[:cut]), str(a)])
        assert texts(second) == first
        assert sorted(first) == sorted(set(chosen))
        assert len({row["prompt_id"] for row in rows_of(second)}) == len(first)


def test_seed_changes_the_order(policy: Model, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "in.jsonl", [{"prompt": word} for word in WORDS])
    first, other = (texts(Loader(tmp_path, policy, seed)(path)) for seed in (0, 1))
    assert first != other
    assert sorted(first) == sorted(other)


@pytest.mark.parametrize("fraction", [0.0, 0.3])
def test_training_and_evaluation_are_disjoint(load: Loader, tmp_path: Path, fraction: float) -> None:
    train = jsonl(tmp_path / "train.jsonl", [{"prompt": word} for word in WORDS])
    with_system = [{"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "cat"}]}]
    exam = jsonl(tmp_path / "exam.jsonl", [*with_system, {"prompt": "dog"}, {"prompt": "zip"}, {"prompt": ""}])
    trained = load(train, {"exam": exam}, eval_fraction=fraction)
    counts = dict(load.counts)
    held = load.evaluation(train, {"exam": exam}, eval_fraction=fraction, max_bad_fraction=0.5)
    assert not set(texts(trained)) & set(texts(held))
    by_set = Counter(row["set"] for row in rows_of(held))
    assert by_set["exam"] == 3
    assert bool(by_set["held_out"]) == bool(fraction)
    assert set(texts(trained)) | set(texts(held)) == {*WORDS, "zip"}
    assert counts["read"] == counts["kept"] + counts["held_out"]
    assert load.quarantined("held_out/exam.jsonl.jsonl")[0]["line"] == 4


def test_evaluation_takes_so_many_of_each_set(load: Loader, tmp_path: Path) -> None:
    exam = jsonl(tmp_path / "exam.jsonl", [{"prompt": word} for word in WORDS])
    few, more = (load.evaluation("toy:train", {"exam": exam}, per_set=n) for n in (3, 7))
    assert len(texts(more)) == 7
    load.seed = 5
    assert texts(load.evaluation("toy:train", {"exam": exam}, per_set=3)) == texts(more)[:3]
    assert read_counts(few)["rows"] == 3


def test_evaluation_errors(load: Loader, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "in.jsonl", [{"prompt": "hi"}])
    with pytest.raises(TsalignError, match=r"name a prompt file under evaluation\.sets"):
        load.evaluation(path, {})
    with pytest.raises(TsalignError, match="held_out is the name of the set"):
        load.evaluation(path, {"held_out": path}, eval_fraction=0.1)
    with pytest.raises(TsalignError, match="evaluation set held_out: no prompts left"):
        load.evaluation(path, {}, eval_fraction=1e-9)
    with pytest.raises(TsalignError, match=r"no prompts left for training.*held_out 1"):
        load(path, {"same": path})


def test_toy_prompts(load: Loader) -> None:
    trained = load("toy:train", {"toy": "toy:test"}, shard_size=4000)
    assert load.counts == {"read": 8000, "kept": 8000, "duplicates": 0, "too_long": 0, "bad": 0}
    assert {row["set"] for row in rows_of(trained)} == set(FAMILIES)
    assert {split_of(text) for text in texts(trained)} == {"train"}
    held = load.evaluation("toy:train", {"toy": "toy:test"}, per_set=20)
    assert Counter(row["set"] for row in rows_of(held)) == dict.fromkeys(FAMILIES, 20)


@settings(max_examples=10, deadline=None)
@given(count=st.integers(1, 40), size=st.integers(1, 15), shard=st.integers(1, 6))
def test_portions(policy: Model, count: int, size: int, shard: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        load = Loader(Path(name), policy)
        path = jsonl(Path(name) / "in.jsonl", [{"prompt": f"add {n} and 1"} for n in range(count)])
        everything = load(path, prompts_per_iteration=size, shard_size=shard)
        data = DataConfig(prompts=path, prompts_per_iteration=size, shard_size=shard)
        rounds = -(-count // size)
        portions = [portion(everything, number, data) for number in range(1, 2 * rounds + 1)]
        assert portions[:rounds] == portions[rounds:]
        assert len({part.fingerprint for part in portions}) == rounds
        seen = [texts(part) for part in portions[:rounds]]
        assert {len(part) for part in seen} == {len(set(part)) for part in seen} == {min(size, count)}
        assert len({text for part in seen for text in part}) == count
        assert all(read_counts(part)["rows"] == min(size, count) for part in portions)


def test_portion_of_everything_and_names_through_json() -> None:
    prompts = Dataset("/nowhere", "x")
    assert portion(prompts, 3, DataConfig(prompts="a")) is prompts
    part = Dataset("/nowhere", "x", ("part-00001.parquet",))
    assert Dataset(**json.loads(json.dumps(vars(part)))) == part


def test_a_second_load_leaves_nothing_of_the_first(load: Loader, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "in.jsonl", [{"prompt": word} for word in [*WORDS, ""]])
    assert len(load(path, shard_size=2, max_bad_fraction=0.5).shards()) == 8
    jsonl(tmp_path / "in.jsonl", [{"prompt": "hi"}])
    assert texts(load(path, shard_size=2)) == ["hi"]
    assert not (tmp_path / "quarantine" / "prompts").exists()
