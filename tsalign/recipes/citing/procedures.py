"""How a model that has learnt from revisions answers: guided by a rubric, or in a draft that it then rewrites."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from tsalign.common.seeds import derive
from tsalign.config import ConfigModel, SamplingConfig
from tsalign.data.shards import Row, map_shards
from tsalign.engines import Request
from tsalign.evaluation.procedures import Asked, Procedure, direct
from tsalign.prompts import templates
from tsalign.recipes.citing.retrieval import match
from tsalign.recipes.citing.revision import conversation
from tsalign.recipes.citing.rubrics import rubrics_from
from tsalign.runs.artifacts import Dataset, Endpoint, Folder, Model
from tsalign.runs.run import Iteration
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function
from tsalign.stages.sampling import SampleWorker

FOLDER = Path(__file__).parent


class GuidedConfig(ConfigModel):
    """Keys of the procedure `guided`."""

    rubrics: str = Field(description="folder `rubrics` that a citing run wrote")
    templates: dict[str, str] = Field(
        default_factory=dict, description="citing_rewrite: Jinja text, or the path of one; default: ours"
    )


class RewriteConfig(GuidedConfig):
    """Keys of the procedure `rewrite`."""

    passes: int = Field(1, ge=1, description="times that the draft is rewritten")


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
    return guided_by(it, asked, rubrics_from(config.rubrics), _template(config))


def _rewrite(it: Iteration, asked: Asked, config: RewriteConfig, /) -> dict[str, Dataset]:
    return rewritten(it, asked, rubrics_from(config.rubrics), _template(config), config.passes)


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
    arguments: dict[str, Any] = {
        "model": model,
        "template": template,
        "sampling": sampling,
        "temperatures": temperatures,
        "seed": derive(stage.seed, stage.iteration, stage.name),
        "tensor_parallel": stage.resources.sample.tensor_parallel,
    }
    return map_shards(stage, answers, RewriteWorker, arguments, stage.resources.sample)


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
