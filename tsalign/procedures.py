"""Procedures: how a model answers held-out prompts, in one step or several; each step gives candidate sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

from tsalign import templates
from tsalign.config import SamplingConfig
from tsalign.data.shards import Row, map_shards
from tsalign.engines import Request
from tsalign.retrieval import match
from tsalign.revision import conversation
from tsalign.runs.artifacts import Dataset, Endpoint, Model, Rubrics
from tsalign.runs.stage import Stage
from tsalign.sampling import SampleWorker, sample
from tsalign.seeds import derive

OURS: Mapping[str, str] = MappingProxyType({})
TEMPLATE = "citing_rewrite"


class Steps(Protocol):
    """What runs stages: a `Run` or an `Iteration`."""

    def stage(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """See `Iteration.stage`."""


def direct(
    steps: Steps,
    name: str,
    model: Model | Endpoint,
    prompts: Dataset,
    sampling: SamplingConfig,
    temperatures: tuple[float, ...],
) -> dict[str, Dataset]:
    """`draft`: answers to the prompts as they are."""
    return {"draft": steps.stage(f"{name}_draft", sample, model, prompts, sampling, temperatures)}


def guided(
    steps: Steps,
    name: str,
    model: Model | Endpoint,
    prompts: Dataset,
    sampling: SamplingConfig,
    temperatures: tuple[float, ...],
    rubrics: Rubrics,
    overrides: Mapping[str, str] = OURS,
) -> dict[str, Dataset]:
    """`guided`: answers to the prompts with their retrieved rubrics, without a draft.

    Args:
        overrides: template name -> path, instead of ours.
    """
    template = templates.texts(overrides)[TEMPLATE]
    matched = steps.stage(f"{name}_rubrics", match, prompts, rubrics)
    return {"guided": steps.stage(f"{name}_guided", rewrite_once, model, matched, template, sampling, temperatures)}


def rewrite(
    steps: Steps,
    name: str,
    model: Model | Endpoint,
    prompts: Dataset,
    sampling: SamplingConfig,
    temperatures: tuple[float, ...],
    rubrics: Rubrics,
    passes: int = 1,
    overrides: Mapping[str, str] = OURS,
) -> dict[str, Dataset]:
    """`draft`, then `rewrite_1` to `rewrite_<passes>`: each rewrites what came before to meet the retrieved rubric.

    Args:
        overrides: template name -> path, instead of ours.
    """
    template = templates.texts(overrides)[TEMPLATE]
    matched = steps.stage(f"{name}_rubrics", match, prompts, rubrics)
    answers = direct(steps, name, model, matched, sampling, temperatures)
    for number in range(1, passes + 1):
        latest = list(answers.values())[-1]
        step = f"rewrite_{number}"
        answers[step] = steps.stage(f"{name}_{step}", rewrite_once, model, latest, template, sampling)
    return answers


def rewrite_once(
    stage: Stage,
    model: Model | Endpoint,
    answers: Dataset,
    template: str,
    sampling: SamplingConfig,
    temperatures: tuple[float, ...] = (),
) -> Dataset:
    """Candidate sets whose completions are rewritten, each at the temperature at which it was sampled.

    Args:
        answers: candidate sets with `rubric`; or prompts with it, for `sampling.k` answers at each of `temperatures`.

    Raises:
        TsalignError: more than 1 % of the prompts failed.
    """
    arguments: dict[str, Any] = {
        "model": model,
        "template": template,
        "sampling": sampling,
        "temperatures": temperatures,
        "seed": derive(stage.seed, stage.iteration, stage.name),
        "tensor_parallel": stage.resources.sample.tensor_parallel,
    }
    placement = stage.resources.sample
    gpus = placement.gpus * placement.tensor_parallel
    return map_shards(stage, answers, RewriteWorker, arguments, placement, gpus=gpus)


class RewriteWorker(SampleWorker):
    """Samples as `SampleWorker` does, but asks for each completion of a row to be rewritten."""

    def __init__(self, template: str, **sampling: Any) -> None:
        super().__init__(**sampling)
        self.template = template

    def _requests(self, row: Row) -> list[Request]:
        if "completions" in row:
            drafts = [(completion["text"], completion["temperature"]) for completion in row["completions"]]
        else:
            drafts = [("", temperature) for temperature in self.temperatures for _ in range(self.sampling.k)]
        return [
            Request(
                conversation(self.template, row["prompt"], row["rubric"], draft),
                derive(self.seed, row["prompt_id"], number),
                temperature,
            )
            for number, (draft, temperature) in enumerate(drafts)
        ]
