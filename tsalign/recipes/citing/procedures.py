"""How a model that has learnt from revisions answers: guided by a rubric, or in a draft that it then rewrites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from tsalign.common.seeds import derive
from tsalign.config import ConfigModel, SamplingConfig
from tsalign.config.locations import FILES, TEXT
from tsalign.data.shards import Row
from tsalign.engines import Completion, Failed, Request, check_engine, request_from
from tsalign.evaluation.procedures import Asked, Procedure, direct
from tsalign.prompts import templates
from tsalign.recipes.citing.retrieval import match
from tsalign.recipes.citing.revision import conversation
from tsalign.recipes.citing.rubrics import rubrics_from
from tsalign.runs.artifacts import Dataset, Endpoint, Folder, Model
from tsalign.runs.iteration import Iteration
from tsalign.runs.plan import PlannedStage, expected, times
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function
from tsalign.stages.generation import Written, generate, placement
from tsalign.stages.sampling import candidate_set

FOLDER = Path(__file__).parent


class GuidedConfig(ConfigModel):
    """Keys of the procedure `guided`."""

    rubrics: Annotated[str, FILES] = Field(description="Folder `rubrics` that a `citing` run wrote.")
    templates: Annotated[dict[str, str], TEXT] = Field(
        default_factory=dict, description="Your own `citing_rewrite`: Jinja text, or the path of one."
    )


class RewriteConfig(GuidedConfig):
    """Keys of the procedure `rewrite`."""

    passes: int = Field(1, ge=1, description="Times that the draft is rewritten.")


def guided_by(it: Iteration, asked: Asked, rubrics: Folder, template: str) -> dict[str, Dataset]:
    """`guided`: answers to the prompts with their retrieved rubrics, without a draft."""
    matched = it.stage(f"{asked.name}_rubrics", match, asked.prompts, rubrics)
    arguments = (asked.model, matched, template, asked.sampling, asked.temperatures)
    return {"guided": it.stage(f"{asked.name}_guided", rewrite_once, *arguments)}


def rewritten(it: Iteration, asked: Asked, rubrics: Folder, template: str, passes: int) -> dict[str, Dataset]:
    """`draft`, then `rewrite_1` to `rewrite_<passes>`: each rewrites what came before to meet the retrieved rubric."""
    matched = it.stage(f"{asked.name}_rubrics", match, asked.prompts, rubrics)
    answers = direct(it, Asked(asked.name, asked.model, matched, asked.sampling, asked.temperatures))
    for number in range(1, passes + 1):
        latest = list(answers.values())[-1]
        step = f"rewrite_{number}"
        answers[step] = it.stage(f"{asked.name}_{step}", rewrite_once, asked.model, latest, template, asked.sampling)
    return answers


def _guided(it: Iteration, asked: Asked, config: GuidedConfig, /) -> dict[str, Dataset]:
    return guided_by(it, asked, it.run.read(rubrics_from, config.rubrics), _template(config))


def _rewrite(it: Iteration, asked: Asked, config: RewriteConfig, /) -> dict[str, Dataset]:
    return rewritten(it, asked, it.run.read(rubrics_from, config.rubrics), _template(config), config.passes)


def _template(config: GuidedConfig) -> str:
    return templates.texts(FOLDER, config.templates)["citing_rewrite"]


GUIDED = Procedure(GuidedConfig, _guided)
REWRITE = Procedure(RewriteConfig, _rewrite)


@stage_function("citing/rewrite", measures=True)
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
    seed = derive(stage.seed, stage.iteration, stage.name)
    asking = Rewriting(template, sampling, temperatures, seed, model.fingerprint)
    return generate(stage, model, answers, asking, sampling)


@rewrite_once.expects
def _expect_rewritten(
    stage: PlannedStage,
    model: Model | Endpoint,
    answers: Dataset,
    template: str,
    sampling: SamplingConfig,
    temperatures: tuple[float, ...] = (),
) -> Dataset:
    check_engine(stage.plan, model, sampling, stage.resources.sample.tensor_parallel)
    given = expected(answers)
    each = given.completions or float(sampling.k * len(temperatures))
    completions = times(given.rows, each)
    work = {"completions": completions, "new tokens": times(completions, sampling.max_tokens)}
    stage.needs(model.role, placement(model, stage.resources), work)
    return stage.derived(given, completions=each, temperatures=len(temperatures) or given.temperatures)


@dataclass(frozen=True)
class Rewriting:
    """Asks for each completion of a row to be rewritten; a row without completions is answered by its rubric alone.

    Attributes:
        temperatures: of the answers to rows without completions.
        writer: fingerprint of the model that writes.
    """

    template: str
    sampling: SamplingConfig
    temperatures: tuple[float, ...]
    seed: int
    writer: str

    def requests(self, row: Row) -> list[Request]:
        """One a completion, at the temperature at which that was sampled."""
        return [
            request_from(
                self.sampling,
                conversation(self.template, row["prompt"], row["rubric"], draft),
                derive(self.seed, row["prompt_id"], number),
                temperature,
            )
            for number, (draft, temperature) in enumerate(self._drafts(row))
        ]

    def read(self, row: Row, requests: list[Request], answers: Sequence[Completion | Failed]) -> Written:
        """The candidate set of what was rewritten."""
        return candidate_set(row, requests, answers, self.sampling, self.writer)

    def _drafts(self, row: Row) -> list[tuple[str, float]]:
        if "completions" in row:
            return [(completion["text"], completion["temperature"]) for completion in row["completions"]]
        return [("", temperature) for temperature in self.temperatures for _ in range(self.sampling.k)]
