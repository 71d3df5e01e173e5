"""CITING: rubrics and their retrieval, revisions as rows to learn from, procedures, and the recipe in small."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planned import check_against_plan
from upath import UPath

import tsalign
from tsalign.common.errors import TsalignError
from tsalign.config import ModelConfig, SamplingConfig, SFTTrainConfig, WritingConfig
from tsalign.data.shards import Row, Shard, iterate, read_counts, read_rows, write_shard
from tsalign.engines import Completion
from tsalign.evaluation.procedures import Asked
from tsalign.prompts import templates
from tsalign.prompts.parsers import Unparsed
from tsalign.recipes import find
from tsalign.recipes.citing.config import RubricsConfig
from tsalign.recipes.citing.procedures import FOLDER, guided_by, rewritten
from tsalign.recipes.citing.retrieval import Corpus, MeanPooling, TfIdf, match, unit
from tsalign.recipes.citing.revision import PreferWorker, Revision, conversation, demonstrate, prefer, replies, revise
from tsalign.recipes.citing.rubrics import categorise, rubrics_from, write_rubrics
from tsalign.recipes.citing.toy.rows import RUBRICS, teacher_rows
from tsalign.runs.artifacts import Dataset, Folder, Model, model_from
from tsalign.runs.stage import Stage
from tsalign.toy import world
from tsalign.toy.oracle import grade
from tsalign.training.objectives.sft import SFT

SHORT = "{{ instruction }} | {{ rubric }} | {{ answer }}"
TEMPLATES = {
    "citing_rubric": "{{ instructions | join(' | ') }}",
    "citing_revise": SHORT,
    "citing_rewrite": SHORT,
}
WRITING = WritingConfig(engine="hf", max_tokens=16, max_model_len=128)
SAMPLING = SamplingConfig(engine="hf", k=2, max_tokens=8, max_model_len=128)
MakeStage = Callable[..., tuple[Stage, Any]]


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def toy_prompts(folder: Path, count: int, families: tuple[str, ...] = world.FAMILIES) -> Dataset:
    """`count` tasks of the families in turn, as `load_prompts` writes them."""
    tasks = world.tasks("train", 1, count, families)
    rows = [
        {"prompt_id": f"{i:03}", "set": task.family, "prompt": task.messages, "prompt_ids": []}
        for i, task in enumerate(tasks)
    ]
    for number in range(2):
        write_shard(UPath(folder) / f"part-{number:05}.parquet", Shard(rows[number::2]))
    return Dataset(str(folder), f"prompts-{count}-{families}")


def corpus(min_similarity: float = 0.1) -> Corpus:
    encoder = TfIdf.fit(["sort the numbers", "shout the words", "sort numbers", "shout words"])
    vectors = unit(encoder.load()(["sort numbers", "shout words"]))
    return Corpus({"sort": "in order", "upper": "loud"}, vectors, encoder, min_similarity, "be right")


# Retrieval


def test_tfidf_is_the_cosine_of_weighted_words() -> None:
    # Two texts: "a" is in both, "b" in one. idf = ln(3 / (1 + df)) + 1, so 1 and ln 1.5 + 1.
    encoder = TfIdf.fit(["aa bb", "aa"])
    assert encoder.terms == ("aa", "bb")
    assert encoder.idf == pytest.approx((1.0, np.log(1.5) + 1))
    vector = encoder.load()(["bb bb aa zz"])[0]  # term frequency counts as 1 + ln n; zz is not known
    wanted = np.array([1.0, (1 + np.log(2)) * (np.log(1.5) + 1)])
    assert vector == pytest.approx(wanted / np.linalg.norm(wanted), rel=1e-5)


def test_the_nearest_category_and_the_fallback_below_the_threshold() -> None:
    near, far, unknown = corpus().finder()(["please sort these numbers", "the weather", "xyz"])
    assert (near.category, near.rubric) == ("sort", "in order")
    assert near.similarity > 0.9
    assert (far.category, far.rubric) == (None, "be right")
    assert unknown == (None, "be right", 0.0)
    assert corpus(min_similarity=-1).finder()(["xyz"])[0].category == "sort"


def test_a_saved_corpus_finds_the_same_and_is_opened_by_its_folder(tmp_path: Path) -> None:
    made = corpus()
    made.save(UPath(tmp_path / "rubrics"))
    opened = rubrics_from(str(tmp_path / "rubrics"))
    asked = ["sort numbers and words", "shout", "nothing"]
    assert Corpus.load(opened).finder()(asked) == made.finder()(asked)
    assert json.loads((tmp_path / "rubrics" / "rubrics.json").read_text())["rubrics"] == made.rubrics
    corpus(0.5).save(UPath(tmp_path / "other"))
    assert rubrics_from(str(tmp_path / "other")).fingerprint != opened.fingerprint
    with pytest.raises(TsalignError, match=r"no rubrics\.json found"):
        rubrics_from(str(tmp_path))


def test_mean_pooling_does_not_depend_on_the_batch(models: dict[str, Model]) -> None:
    from transformers import AutoModel, AutoTokenizer

    encode = MeanPooling(models["policy"]).load()
    texts = ["sort 3 1 2", "shout cat dog", "max 1 2 3 , end with !"]
    together = encode(texts)
    assert together.shape == (3, 32)
    assert together.dtype == np.float32
    model, tokenizer = (kind.from_pretrained(models["policy"].path) for kind in (AutoModel, AutoTokenizer))
    with torch.no_grad():
        hidden = model(**tokenizer(texts[0], return_tensors="pt")).last_hidden_state[0].mean(0)
    assert together[0] == pytest.approx((hidden / hidden.norm()).numpy(), abs=1e-5)
    assert encode(texts[:1])[0] == pytest.approx(together[0], abs=1e-5)


# Categories and rubrics


def test_categories_given_clustered_and_from_a_file(tmp_path: Path, ray_session: None, make_stage: MakeStage) -> None:
    prompts = toy_prompts(tmp_path / "prompts", 60, ("sort", "upper", "date"))
    given = list(iterate([categorise(make_stage("given")[0], prompts, RubricsConfig(examples=3))]))
    assert [row["category"] for row in given] == ["date", "sort", "upper"]
    assert all(len(row["instructions"]) == 3 and row["size"] == 20 for row in given)
    assert {world.parse(text).family for text in given[1]["instructions"]} == {"sort"}  # type: ignore[union-attr]

    clustering = RubricsConfig(categories="cluster", clusters=3, examples=60)
    clusters = list(iterate([categorise(make_stage("clusters")[0], prompts, clustering)]))
    families = [Counter(world.parse(text).family for text in row["instructions"]) for row in clusters]  # type: ignore
    assert sum(max(found.values()) for found in families) >= 54  # nine tenths are with their kind

    listed = tmp_path / "categories.jsonl"
    rows = [{"prompt": row["prompt"], "category": row["set"][0]} for row in iterate([prompts])]
    listed.write_text("".join(json.dumps(row) + "\n" for row in rows))
    named = categorise(make_stage("named")[0], prompts, RubricsConfig(categories=str(listed)))
    assert [row["category"] for row in iterate([named])] == ["d", "s", "u"]
    listed.write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(TsalignError, match="has no category for 59 of 60 prompts"):
        categorise(make_stage("missing")[0], prompts, RubricsConfig(categories=str(listed)))


def test_a_rubric_is_asked_for_once(tmp_path: Path, ray_session: None, make_stage: MakeStage) -> None:
    teacher = model_from(ModelConfig(model="toy:citing_teacher"), "teacher")
    config = RubricsConfig(examples=4)

    def crafted(name: str, families: tuple[str, ...], template: str = TEMPLATES["citing_rubric"]) -> tuple[Row, int]:
        prompts = toy_prompts(tmp_path / name, 30, families)
        categories = categorise(make_stage(f"{name}_categories")[0], prompts, config)
        stage, log = make_stage(f"{name}_rubrics")
        rubrics = write_rubrics(stage, teacher, categories, template, config, WRITING)
        return Corpus.load(rubrics).rubrics, log["asked"]

    first, asked = crafted("first", ("sort", "upper"))
    assert asked == 2
    assert first == {name: RUBRICS[name] for name in ("sort", "upper")}
    again, asked = crafted("first", ("sort", "upper"))
    assert (again, asked) == (first, 0)
    # The same examples of `sort` and `upper` are kept, whatever else there is; another template asks anew.
    cache = (tmp_path / "rubric_cache.jsonl").read_text().splitlines()
    assert len(cache) == 2
    _, asked = crafted("first", ("sort", "upper"), "{{ instructions | join(' | ') }} |")
    assert asked == 2


def test_a_rubric_that_does_not_parse_stops_the_run(
    tmp_path: Path, ray_session: None, make_stage: MakeStage, models: dict[str, Model]
) -> None:
    categories = categorise(make_stage("categories")[0], toy_prompts(tmp_path / "p", 14), RubricsConfig())
    ours = templates.texts(FOLDER)["citing_rubric"]
    writing = WRITING.model_copy(update={"max_model_len": 4096})
    with pytest.raises(TsalignError, match=r"expected one <rubric>...</rubric>, found 0"):
        write_rubrics(make_stage("rubrics")[0], models["policy"], categories, ours, RubricsConfig(), writing)


# Revisions


ROW = {
    "prompt_id": "p",
    "set": "s",
    "category": "sort",
    "rubric": "in order",
    "writer": "w",
    "prompt": [{"role": "system", "content": "be kind"}, *user("sort 2 1")],
    "completions": [{"text": "2 1", "finish": "length"}, {"text": "1 2", "finish": "stop"}],
}


def said(*texts: str, finish: str = "stop") -> list[Completion]:
    """What a teacher answered."""
    return [Completion(text, [], finish) for text in texts]


def test_revisions_become_rows_with_what_they_came_from() -> None:
    revision = Revision("{{ instruction }} {{ rubric }} {{ answer }}", "{{ rubric }}: {{ answer }}")
    assert [prompt[1]["content"] for prompt in revision.prompts(ROW)] == [
        "sort 2 1 in order 2 1",
        "sort 2 1 in order 1 2",
    ]
    written = revision.read(ROW, said("1 2 ", "1 2"))
    first, second = written.rows
    assert first["prompt"] == [{"role": "system", "content": "be kind"}, *user("in order: 2 1")]
    assert (first["instruction"], first["draft"], first["completion"]) == (ROW["prompt"], "2 1", "1 2")
    assert (first["prompt_id"], second["prompt_id"]) == ("p-0", "p-1")
    assert first["distance"] == pytest.approx(2 / 3)  # two of three characters
    assert written.counts["unchanged"] == 1
    assert Revision(revision.template, None).read(ROW, said("1", "2")).rows[0]["prompt"] == ROW["prompt"]


def test_a_template_that_asks_for_a_tag_gets_it_or_refuses() -> None:
    ours = templates.texts(FOLDER)
    revision = Revision(ours["citing_revise"], ours["citing_rewrite"])
    rows = revision.read(ROW, said("Sure! <revision>1 2</revision>", "<revision> 3 </revision>")).rows
    assert [row["completion"] for row in rows] == ["1 2", "3"]
    for bad in ("1 2", "<revision></revision>", "<revision>1</revision><revision>2</revision>"):
        with pytest.raises(Unparsed):
            revision.read(ROW, said("<revision>1</revision>", bad))
    with pytest.raises(Unparsed, match="nothing"):
        Revision(SHORT, SHORT).read(ROW, said(" ", "1"))


def test_our_templates_show_instruction_rubric_and_answer() -> None:
    ours = templates.texts(FOLDER)
    rewriting = conversation(ours["citing_rewrite"], user("Sort 2 1"), "In order.", "2 1")
    guided = conversation(ours["citing_rewrite"], user("Sort 2 1"), "In order.")
    assert all(part in rewriting[0]["content"] for part in ("Sort 2 1", "In order.", "2 1", "Rewrite"))
    assert "Rewrite" not in guided[0]["content"]
    assert "In order." in guided[0]["content"]
    shown = templates.render(ours["citing_rubric"], instructions=["one", "two"])[0]["content"]
    assert shown.index("one") < shown.index("two") < shown.index("<rubric>")


def test_the_loss_is_on_the_revision_alone(models: dict[str, Model]) -> None:
    from tsalign.data.chat import load_tokenizer

    tokenizer = load_tokenizer(models["policy"])
    (row, _) = Revision(SHORT, SHORT).read(ROW, said("1 2", "1 2")).rows
    example = SFT(SFTTrainConfig()).encode(row, tokenizer)
    (sequence,), (length,) = example.sequences, example.response_lengths
    assert tokenizer.decode(sequence[-length:]) == "1 2 <eos>"
    assert "in order | 2 1" in tokenizer.decode(sequence[:-length])


def test_what_was_cut_has_no_end_to_learn(models: dict[str, Model]) -> None:
    from tsalign.data.chat import load_tokenizer

    tokenizer = load_tokenizer(models["policy"])
    (row, _) = Revision(SHORT, SHORT).read(ROW, said("1 2", "1 2", finish="length")).rows
    assert (row["finish"], row["draft_finish"]) == ("length", "length")
    example = SFT(SFTTrainConfig()).encode(row, tokenizer)
    assert tokenizer.decode(example.sequences[0][-example.response_lengths[0] :]) == "1 2"
    shard = PreferWorker()([{**row, "prompt_id": "p"}], "part-00000.parquet")
    assert (shard.rows[0]["chosen_finish"], shard.rows[0]["rejected_finish"]) == ("length", "length")
    # Between tags a revision is whole, whatever came behind them.
    ours = templates.texts(FOLDER)["citing_revise"]
    (row, _) = Revision(ours, SHORT).read(ROW, said("<revision>1 2</revision> I", "<revision>1</revision>")).rows
    assert row["finish"] == "stop"


def test_teacher_revises_and_preferences_are_what_changed(
    tmp_path: Path, ray_session: None, make_stage: MakeStage
) -> None:
    rng, rows = random.Random(0), []
    for index, task in enumerate(world.tasks("tune", 3, 42)):
        drafts = [task.response, f"the answer is {rng.choice(world.WORDS)}"]
        completions = [{"text": d, "token_ids": [1], "finish": "stop", "seed": 1, "temperature": 1.0} for d in drafts]
        known = {"rubric": RUBRICS[task.family], "category": task.family, "writer": "w", "set": task.family}
        rows.append({"prompt_id": f"{index}", "prompt": task.messages, **known, "completions": completions})
    write_shard(UPath(tmp_path) / "drafts/part-00000.parquet", Shard(rows))
    drafts_set = Dataset(str(tmp_path / "drafts"), "drafts")
    teacher = model_from(ModelConfig(model="toy:citing_teacher"), "teacher")
    stage, log = make_stage("revisions")
    stage = replace(stage, max_failed_fraction=0.0)
    revisions = revise(stage, teacher, drafts_set, Revision(SHORT, SHORT), WRITING)
    made = list(iterate([revisions]))
    assert len(made) == read_counts(revisions)["revisions"] == 84
    right = [grade(row["instruction"], row["completion"]) == 1 for row in made]
    assert sum(right) / len(right) > 0.85
    assert 0.4 < log["unchanged_share"] < 0.6
    assert 0.2 < log["edit_distance"] < 0.6
    assert log["length_growth"] < 1
    pairs = list(iterate([prefer(make_stage("preferences")[0], revisions)]))
    assert len(pairs) == sum(row["draft"] != row["completion"] for row in made)
    assert pairs[0]["prompt"] == made[1]["instruction"]
    assert pairs[0]["rejected"][0]["content"] == made[1]["draft"]


# Demonstrations


def test_demonstrations_are_found_by_prompt(tmp_path: Path, ray_session: None, make_stage: MakeStage) -> None:
    file = tmp_path / "demonstrations.jsonl"
    rows = [
        {"prompt": "one", "completion": "1"},
        {"instruction": "two", "input": "", "output": "2"},
        {"messages": [*user("three"), {"role": "assistant", "content": "3"}]},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = replies(str(file))
    assert sorted(found.values()) == ["1", "2", "3"]
    prompts = [{"prompt_id": known, "set": "s", "prompt": user(reply), "rubric": "r"} for known, reply in found.items()]
    write_shard(UPath(tmp_path) / "prompts/part-00000.parquet", Shard(prompts))
    made = demonstrate(make_stage("demos")[0], Dataset(str(tmp_path / "prompts"), "p"), str(file), 2, "{{ rubric }}")
    assert [row["completion"] for row in iterate([made])] == ["1", "1", "2", "2", "3", "3"]
    assert {row["prompt"][0]["content"] for row in iterate([made])} == {"r"}

    file.write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(TsalignError, match="no demonstration"):
        demonstrate(make_stage("missing")[0], Dataset(str(tmp_path / "prompts"), "p"), str(file), 1)
    file.write_text(json.dumps({"prompt": "one"}) + "\n")
    with pytest.raises(TsalignError, match="1: no reply; expected completion or output"):
        replies(str(file))


# Procedures


class Recorder:
    """Runs each stage at once, and remembers their names."""

    def __init__(self, make_stage: MakeStage) -> None:
        self.make_stage, self.names = make_stage, []

    def stage(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.names.append(name)
        return function(self.make_stage(name)[0], *args, **kwargs)


def test_procedures_give_candidate_sets_of_each_step(
    tmp_path: Path, ray_session: None, make_stage: MakeStage, models: dict[str, Model]
) -> None:
    corpus().save(UPath(tmp_path / "rubrics"))
    rubrics = rubrics_from(str(tmp_path / "rubrics"))
    prompts, steps = toy_prompts(tmp_path / "prompts", 14), Recorder(make_stage)
    asked = Asked("answers", models["policy"], prompts, SAMPLING, (1.0, 0.0))
    made = rewritten(steps, asked, rubrics, SHORT, 2)
    assert list(made) == ["draft", "rewrite_1", "rewrite_2"]
    assert steps.names == ["answers_rubrics", "answers_draft", "answers_rewrite_1", "answers_rewrite_2"]
    (guided,) = guided_by(steps, replace(asked, name="guided"), rubrics, SHORT).values()
    for answers in (*made.values(), guided):
        assert [shard.name for shard in answers.shards()] == [shard.name for shard in prompts.shards()]
        for row, prompt in zip(iterate([answers]), iterate([prompts])):
            assert (row["prompt_id"], row["prompt"]) == (prompt["prompt_id"], prompt["prompt"])
            assert [c["temperature"] for c in row["completions"]] == [1.0, 1.0, 0.0, 0.0]
            assert row["completions"][2]["text"] == row["completions"][3]["text"]  # greedy, from the same draft
    texts = {
        name: [c["text"] for row in iterate([answers]) for c in row["completions"]] for name, answers in made.items()
    }
    assert texts["draft"] != texts["rewrite_1"] != texts["rewrite_2"]
    rubric_of = {row["set"]: row["rubric"] for row in iterate([made["rewrite_2"]])}
    assert (rubric_of["sort"], rubric_of["date"]) == ("in order", "be right")


# The toy world


def test_the_shipped_teacher_learnt_what_the_quickstart_asks() -> None:
    rows = list(teacher_rows(0, 200))
    assert rows == list(teacher_rows(0, 200))
    rubrics = [row for row in rows if row["completion"] in RUBRICS.values()]
    assert 5 <= len(rubrics) <= 40
    instructions = rubrics[0]["prompt"][0]["content"].split(" | ")
    assert len(instructions) == 4
    assert all(world.parse(text) for text in instructions)
    task, rubric, _ = next(row for row in rows if row not in rubrics)["prompt"][0]["content"].split(" | ")
    assert RUBRICS[world.parse(task).family] == rubric  # type: ignore[union-attr]


def test_the_recipe_in_small(tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    summary = tsalign.run(
        find("citing").quickstart,
        run="small",
        iterations=1,
        data__prompts_per_iteration=64,
        data__shard_size=32,
        evaluation__sets={"toy": "toy:tune"},
        evaluation__prompts_per_set=5,
        evaluation__temperatures=[0.0],
        passes=1,
        tune__epochs=1,
        preference={"reference": "previous", "batch_size": 16, "learning_rate": 1e-4, "precision": "fp32"},
    )
    assert summary["status"] == "done"
    folder = tmp_path / "runs" / "small"
    place = folder / "iterations" / "1"
    corpus_kept = json.loads((folder / "rubrics" / "rubrics.json").read_text())
    assert corpus_kept["rubrics"] == RUBRICS
    assert (place / "policy" / "model.safetensors").exists()
    assert {found.name for found in place.glob("evaluation*")} == {"evaluation", "evaluation_draft"}
    rows = [row for shard in Dataset(str(place / "revisions"), "").shards() for row in read_rows(shard)]
    assert len(rows) == 64
    assert all(row["rubric"] == RUBRICS[row["category"]] for row in rows)
    check_against_plan(folder)
    assert (place / "preferring" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "sft", "demonstrations": None}, "method sft needs demonstrations"),
        ({"method": "sft", "preference": {"reference": "initial"}}, "has no revisions to prefer"),
        ({"writing.k": 2}, "writing.k"),
        ({"templates": {"nonsense": "x"}}, "templates.nonsense: no such template"),
    ],
)
def test_configs_that_cannot_work(
    change: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_session: None
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TsalignError, match=message):
        tsalign.run(find("citing").quickstart, **{key.replace(".", "__"): value for key, value in change.items()})


def test_matching_is_counted(tmp_path: Path, ray_session: None, make_stage: MakeStage) -> None:
    corpus().save(UPath(tmp_path / "rubrics"))
    stage, log = make_stage("matched")
    matched = match(stage, toy_prompts(tmp_path / "prompts", 14), Folder(str(tmp_path / "rubrics"), "r"))
    rows = list(iterate([matched]))
    assert (
        log["fallback"]
        == sum(row["category"] is None for row in rows)
        == 14 - sum(row["similarity"] >= 0.1 for row in rows)
    )
