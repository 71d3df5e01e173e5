"""The toy world's models from nothing, as a recipe: the project's own stages train what the quickstart ships with."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from tsalign.common.registry import attribute
from tsalign.config import CustomTrainConfig, DataConfig, LogisticTrainConfig, RunConfig, SamplingConfig, validate
from tsalign.data.prompts import load_prompts
from tsalign.data.shards import Row
from tsalign.runs.artifacts import Dataset, Model
from tsalign.runs.plan import ONE_TASK, PlannedStage
from tsalign.runs.recipe import recipe
from tsalign.runs.run import Run
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function
from tsalign.stages.sampling import sample
from tsalign.toy import demonstrations
from tsalign.toy.models import Shape, as_reward_model, initialise
from tsalign.toy.names import MODELS
from tsalign.toy.stages import language, shards, texts
from tsalign.training.stage import train

GROUPS = "tsalign.toy.objective:GroupReward"
# What belongs to one recipe lies in its folder; each is a function of the run, `short`, and the policies' samples.
RECIPES = (
    "tsalign.recipes.pad.toy.build:build",
    "tsalign.recipes.arte.toy.build:build",
    "tsalign.recipes.citing.toy.build:build",
)
SAMPLING = SamplingConfig(engine="hf", k=3, max_tokens=16, max_model_len=128)


# How every reward model is trained.
REWARD: dict[str, Any] = {
    "betas": (0.9, 0.95),
    "weight_decay": 0.01,
    "schedule": "linear",
    "warmup": 0.05,
    "precision": "fp32",
    "zero_stage": 0,
    "checkpoint_steps": 500,
}


def on_groups(epochs: float) -> CustomTrainConfig:
    """Settings of a training on groups of replies."""
    return CustomTrainConfig(objective=GROUPS, learning_rate=2e-3, epochs=epochs, batch_size=16, **REWARD)


class ToyConfig(RunConfig):
    """Sizes of the toy world's models and of their trainings, in steps of 64 replies or 16 groups."""

    policy: Shape = Field(Shape(hidden=64, layers=2, intermediate=192), description="Size of the policy.")
    student: Shape = Field(Shape(hidden=64, layers=2, intermediate=128), description="Size of the student's trunk.")
    teacher: Shape = Field(Shape(hidden=64, layers=3, intermediate=192), description="Size of the teacher's trunk.")
    student_fresh_layers: int = Field(1, description="Layers added to the student's trunk.")
    teacher_fresh_layers: int = Field(2, description="Layers added to the teacher's trunk.")
    policy_steps: int = Field(2000, description="Steps on clean replies.")
    noisy_steps: int = Field(1000, description="Steps on replies with bad habits.")
    student_steps: int = Field(1200, description="Steps of the student's trunk.")
    student_groups: int = Field(32000, description="Groups that the student learns to rank.")
    student_pairs: int = Field(600, description="Preferences that the student learns from people.")
    student_flips: float = Field(0.4, description="Share of these that are labelled wrongly.")
    teacher_steps: int = Field(2000, description="Steps of the teacher's trunk.")
    teacher_groups: int = Field(32000, description="Groups that the teacher learns to rank.")
    teacher_epochs: float = Field(4, description="Passes over them.")
    proxy_steps: int = Field(64, description="Further clean steps of the policy whose samples are also ranked.")
    short: bool = Field(False, description="A few steps for the recipes' own models too, to see that they work.")


SHORT = {
    "short": True,
    "policy_steps": 8,
    "noisy_steps": 4,
    "student_steps": 8,
    "teacher_steps": 8,
    "teacher_groups": 64,
    "student_groups": 64,
    "proxy_steps": 4,
    "student_pairs": 64,
}


def build_config(out: Path, short: bool = False, seed: int = 0) -> ToyConfig:
    """The run beside `out` that builds all models.

    Args:
        short: a few steps of each training, to see that it works.
    """
    sizes: dict[str, Any] = SHORT if short else {}
    place = {"run": f"{out.name}-build", "storage": str(out.absolute().parent)}
    return validate(ToyConfig, {"recipe": "toy", **place, "seed": seed, **sizes}, f"--out {out}")


def ship(out: Path) -> None:
    """Copy the models that ship from the finished run beside `out` into it."""
    for role in MODELS:
        shutil.copytree(out.absolute().parent / f"{out.name}-build" / role, out / role, dirs_exist_ok=True)


@recipe("toy", ToyConfig)
def toy(run: Run, cfg: ToyConfig) -> None:
    """A base policy with bad habits, a small student that half knows what is good, teachers that know well."""
    clean = run.stage("clean_rows", generate, "clean_rows", 64 * cfg.policy_steps // 4)
    learning = run.overlap(grow_teacher, run, cfg, clean)
    blank = run.stage("policy_blank", initialise, cfg.policy)
    skilled = run.stage("policy_clean", train, blank, [clean], language(cfg.policy_steps, 6e-3), "policy")
    noisy = run.stage("noisy_rows", generate, "noisy_rows", 64 * cfg.noisy_steps // 2)
    policy = run.stage("policy", train, skilled, [noisy], language(cfg.noisy_steps, 2e-3, epochs=2), "policy")

    few = run.stage("student_rows", generate, "clean_rows", 64 * cfg.student_steps // 4)
    small = run.stage("student_blank", initialise, cfg.student)
    trunk = run.stage("student_trunk", train, small, [few], language(cfg.student_steps, 6e-3), "student")
    fresh = run.stage("student_fresh", as_reward_model, trunk, cfg.student_fresh_layers)

    proxy = run.stage(
        "proxy",
        train,
        policy,
        [clean],
        language(cfg.proxy_steps, 1e-3, cfg.proxy_steps / cfg.policy_steps * 4),
        "policy",
    )
    prompts = run.stage("prompts", load_prompts, DataConfig(prompts="toy:train"), {}, policy)
    samples = [
        run.stage(f"samples_{i}", sample, writer, prompts, SAMPLING, None) for i, writer in enumerate((policy, proxy))
    ]
    groups = run.stage("teacher_groups", group_samples, samples, cfg.teacher_groups)
    teaching = run.overlap(
        run.stage, "teacher", train, learning.result(), [groups], on_groups(cfg.teacher_epochs), "student"
    )
    few_groups = run.stage("student_groups", group_samples, samples, cfg.student_groups)
    informed = run.stage("student_informed", train, fresh, [few_groups], on_groups(2), "student")
    # What the student learnt from people: few pairs, and many of them labelled wrongly.
    pairs = run.stage("student_pairs", generate, "student_pairs", cfg.student_pairs, cfg.student_flips)
    on_pairs = LogisticTrainConfig(learning_rate=1e-3, epochs=2, batch_size=64, **REWARD)
    run.stage("student", train, informed, [pairs], on_pairs, "student")
    for target in RECIPES:
        attribute(target)(run, cfg.short, samples)
    teaching.result()


def grow_teacher(run: Run, cfg: ToyConfig, clean: Dataset) -> Model:
    """The teacher before it has seen a preference: a language model of right replies with fresh layers on top."""
    blank = run.stage("teacher_blank", initialise, cfg.teacher)
    trunk = run.stage("teacher_trunk", train, blank, [clean], language(cfg.teacher_steps, 4e-3), "student")
    return run.stage("teacher_fresh", as_reward_model, trunk, cfg.teacher_fresh_layers)


@stage_function("toy/rows")
def generate(stage: Stage, kind: str, count: int, *more: float) -> Dataset:
    """`count` rows of a generator in `tsalign.toy.demonstrations`, as shards."""
    return shards(stage, getattr(demonstrations, kind), stage.seed, count, *more)


@generate.expects
def _expect_rows(stage: PlannedStage, kind: str, count: int, *more: float) -> Dataset:
    stage.needs("", ONE_TASK, {"rows": count})
    return stage.dataset(count)


@stage_function("toy/groups")
def group_samples(stage: Stage, samples: list[Dataset], count: int) -> Dataset:
    """Groups of replies to rank: right ones, demonstrations, near misses, and the policy's own."""
    return shards(stage, _groups, stage.seed, count, samples)


@group_samples.expects
def _expect_groups(stage: PlannedStage, samples: list[Dataset], count: int) -> Dataset:
    stage.needs("", ONE_TASK, {"rows": count})
    return stage.dataset(count)


def _groups(seed: int, count: int, samples: list[Dataset]) -> Iterator[Row]:
    return demonstrations.teacher_groups(seed, count, texts(samples))


def student_preferences() -> Iterator[tuple[str, Row]]:
    """What the shipped student learnt from, for replay."""
    shipped = ToyConfig(recipe="toy")
    for row in demonstrations.student_pairs(shipped.seed, shipped.student_pairs, shipped.student_flips):
        yield "student_preferences", row
