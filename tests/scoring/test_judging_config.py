"""How a config has judges loaded and asked: engine, limits, questions of one's own; and what takes none of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fault_server import server
from pydantic import ValidationError
from test_judge import ITEMS, longer, saying, shown

from tsalign.common.errors import TsalignError
from tsalign.config import DPOTrainConfig, EngineConfig, EvaluationConfig, JudgingConfig, SamplingConfig, TeacherConfig
from tsalign.prompts.templates import FOLDER, texts
from tsalign.runs.artifacts import Endpoint, Model, fingerprint
from tsalign.runs.plan import Plan
from tsalign.scoring import scorer_from_name
from tsalign.scoring.judge import LLMJudge
from tsalign.scoring.logprob import LogProb, reference_scores
from tsalign.teacher.service import Teacher

OWN = "Which is better?\n<reply_A>\n{{ a }}\n</reply_A>\n<reply_B>\n{{ b }}\n</reply_B>\nSay A, B or Tie."
MODEL = Model("/models/judge", "judge", role="judge")


def judge(name: str, **judging: Any) -> Any:
    return scorer_from_name(name, lambda config, role: MODEL).configured(JudgingConfig(**judging))


LOCAL = ["judge:m", "judge_axes:m", "judge_axes_pair:m", "logprob:m", "option_probability:m"]


@pytest.mark.parametrize("name", LOCAL)
def test_a_judge_that_is_a_language_model_has_an_engine(name: str) -> None:
    assert judge(name).inference.engine == "hf"
    chosen = judge(name, engine="vllm", max_model_len=9000, gpu_memory=0.4).inference
    assert (chosen.engine, chosen.max_model_len, chosen.gpu_memory) == ("vllm", 9000, 0.4)


@pytest.mark.parametrize("name", LOCAL)
def test_without_keys_it_is_what_it_was(name: str) -> None:
    assert fingerprint(judge(name)) == fingerprint(scorer_from_name(name, lambda config, role: MODEL))
    assert fingerprint(judge(name, engine="vllm")) != fingerprint(judge(name))


@pytest.mark.parametrize(("name", "template"), [(n, f"{n.replace(':m', '')}") for n in LOCAL[1:3]] + [LOCAL[:1] * 2])
def test_its_question_can_be_replaced(name: str, template: str, tmp_path: Path) -> None:
    key = "judge_pair" if name == "judge:m" else template
    (tmp_path / "own.jinja").write_text(OWN)
    for given in (OWN, str(tmp_path / "own.jinja")):
        assert judge(name, templates={key: given}).template == OWN
    assert judge(name).template == texts(FOLDER)[key]
    assert fingerprint(judge(name, templates={key: OWN})) != fingerprint(judge(name))


@pytest.mark.parametrize(
    ("name", "judging", "message"),
    [
        ("reward_model:m", {"engine": "vllm"}, "evaluation.judging: this judge asks no language model"),
        ("reward_model:m", {"templates": {"judge_pair": OWN}}, "this judge asks no language model"),
        ("tsalign.toy.oracle:grade", {"max_model_len": 99}, "this judge asks no language model; remove these keys"),
        ("logprob:m", {"templates": {"judge_pair": OWN}}, "evaluation.judging.templates: this judge is not asked in"),
        ("option_probability:m", {"templates": {"pad_choice": OWN}}, "this judge is not asked in words; remove them"),
        ("judge:m", {"templates": {"judge_pear": OWN}}, "templates.judge_pear: no such template; expected one of"),
        ("judge:m", {"templates": {"judge_pair": "/none.jinja"}}, "templates.judge_pair: /none.jinja: no such file"),
        ("judge:m", {"templates": {"judge_pair": "{% if %}"}}, "templates.judge_pair: template: "),
    ],
)
def test_keys_without_effect_or_sense_are_errors(name: str, judging: dict[str, Any], message: str) -> None:
    with pytest.raises(TsalignError) as error:
        judge(name, **judging)
    assert message in str(error.value)


def test_a_config_s_question_is_what_the_endpoint_is_asked() -> None:
    with server(saying(longer)) as (url, seen):
        endpoint = Endpoint(f"{url}/v1", "a-judge", "x", role="judge")
        named = scorer_from_name(f"judge:a-judge@{url}/v1", lambda config, role: endpoint)
        asked = named.configured(JudgingConfig(templates={"judge_pair": OWN})).load()
        assert asked(ITEMS) == [0.0, 0.5, 1.0, 0.0, 1.0]
    assert all(body["messages"][-1]["content"].startswith("Which is better?") for body in seen)
    assert {len(shown(body)) for body in seen} == {2}


@pytest.mark.parametrize("asks", ["pair", "axes", "axes_pair"])
def test_a_teacher_that_judges_has_templates_too(asks: Any) -> None:
    config = TeacherConfig(kind="judge", asks=asks, url="http://127.0.0.1:9/v1", templates={f"judge_{asks}": OWN})
    scorer = Teacher(config).client()
    assert isinstance(scorer, LLMJudge)
    assert scorer.template == OWN
    planned = Teacher.expected(config, Plan("x"))
    assert isinstance(planned, LLMJudge)
    assert planned.template == OWN


@pytest.mark.parametrize("kind", ["reward", "generative"])
def test_other_teachers_have_none(kind: Any) -> None:
    with pytest.raises(ValidationError, match=f"templates: a teacher of kind {kind} is not asked to judge"):
        TeacherConfig(kind=kind, templates={"judge_pair": OWN})


@pytest.mark.parametrize("engine", ["hf", "vllm"])
def test_the_reference_is_scored_by_the_engine_of_the_config(engine: Any) -> None:
    tune = DPOTrainConfig(reference="initial", reference_engine=engine)
    written = SamplingConfig(engine="vllm", max_model_len=777, gpu_memory=0.3, temperature=0.5)
    scorer = reference_scores(MODEL, tune, written)["reference"]
    assert scorer == LogProb(MODEL, inference=EngineConfig(engine=engine, max_model_len=777, gpu_memory=0.3))
    warmer = reference_scores(MODEL, tune, written.model_copy(update={"temperature": 1.0}))["reference"]
    assert fingerprint(scorer) == fingerprint(warmer), "how it was written is nothing to the reference"


def test_evaluation_takes_the_block() -> None:
    given = {"judge": "judge:m", "judging": {"engine": "vllm", "templates": {"judge_pair": OWN}}}
    assert EvaluationConfig.model_validate(given).judging.engine == "vllm"
    with pytest.raises(ValidationError):
        EvaluationConfig.model_validate({"judge": "judge:m", "judging": {"engine": "openai"}})
