"""Fixtures that test files share: one small Ray, tiny models made on the spot, stages outside a run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import pytest
from driver import EXAMPLE, Driver, Quickstart
from upath import UPath

from tsalign.config import EngineConfig, Placement, ResourceConfig, TrainConfig
from tsalign.runs.artifacts import Dataset, Model, fingerprint
from tsalign.runs.ray_session import WORKER_ENVIRONMENT
from tsalign.runs.stage import Stage

# Where workers find what tests define.
HERE = Path(__file__).parent
WORKER_PATHS = [str(folder) for folder in (HERE, *sorted(HERE.rglob("*"))) if any(folder.glob("*.py"))]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs Ray, so that `make check` can leave it out."""
    for item in items:
        if "ray_session" in getattr(item, "fixturenames", ()):
            item.add_marker("ray")


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One local Ray with room for four actors, for all tests that need it."""
    import ray

    os.environ.update(WORKER_ENVIRONMENT, PYTHONPATH=os.pathsep.join(WORKER_PATHS))
    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


@pytest.fixture
def released(ray_session: None) -> Callable[[], None]:
    """A check that all CPUs are free again; Ray hands them back a moment after an actor's end."""
    import ray

    def check() -> None:
        deadline = time.monotonic() + 20
        while ray.available_resources().get("CPU", 0) < ray.cluster_resources()["CPU"]:
            assert time.monotonic() < deadline, f"still held: {ray.cluster_resources()} of {ray.available_resources()}"
            time.sleep(0.1)
        groups = [group for group in ray.util.placement_group_table().values() if group["state"] != "REMOVED"]
        assert groups == []

    check()
    return check


@pytest.fixture(scope="session")
def best_of_n(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that pip installed the package of the example recipe into."""
    target = tmp_path_factory.mktemp("site")
    source = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("source") / "example_recipe")  # a build leaves files
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "install", *offline, "--target", target, source], check=True)
    return target


@pytest.fixture(scope="session")
def best_of_n_run(best_of_n: Path, tmp_path_factory: pytest.TempPathFactory) -> Quickstart:
    """The example recipe from end to end, once for all tests that read what it left."""
    driver = Driver(tmp_path_factory.mktemp("quickstart"), (best_of_n,))
    printed = driver.call("quickstart", "--recipe", "best-of-n")
    return Quickstart(driver, driver.folder / "runs" / "quickstart-best-of-n", printed)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    """A random `policy` (causal LM) and `student` (reward model) of 30 thousand parameters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    from tsalign.toy.tokenizer import build_tokenizer

    tokenizer, made = build_tokenizer(), {}
    for seed, (name, kind) in enumerate(
        {"policy": LlamaForCausalLM, "student": LlamaForSequenceClassification}.items()
    ):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=1,
            num_key_value_heads=1,
            head_dim=32,
            max_position_embeddings=128,
            initializer_range=0.2,
            num_labels=1,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        folder = tmp_path_factory.mktemp(name)
        kind(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        made[name] = Model(str(folder), fingerprint(name))
    return made


@pytest.fixture(scope="session")
def alone() -> Iterator[Callable[..., list[dict[str, float]]]]:
    """Train in this process, on one core as a worker does; returns what it reported."""
    import torch
    import torch.distributed as dist

    from tsalign.training import objectives
    from tsalign.training.job import Job
    from tsalign.training.loop import run
    from tsalign.training.reports import Begins

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)

    def trained(
        model: Model,
        data: Dataset,
        config: TrainConfig,
        out: Path,
        replay: Sequence[Dataset] = (),
        share: float = 0.0,
    ) -> list[dict[str, float]]:
        reports: Any = SimpleQueue()
        objective = objectives.build(config.objective, config)
        work, threads = str(out.with_name(f".{out.name}")), torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("LOCAL_RANK", "0")
                run(Job(model, [data], list(replay), share, objective, config, 0, work, str(out), reports))
        finally:
            torch.set_num_threads(threads)
        sent = [reports.get() for _ in range(reports.qsize())]
        assert [report.phase for report in sent if isinstance(report, Begins)] == ["load", "encode", "work", "commit"]
        return [report for report in sent if not isinstance(report, Begins)]

    yield trained
    dist.destroy_process_group()


class Answered(NamedTuple):
    """What an engine answered, what it said of its progress, and what it counted."""

    answers: list[Any]
    finished: list[float]
    counts: dict[str, int]


class EngineActor:
    """Holds an engine for as long as tests need one."""

    def __init__(self, model: Model) -> None:
        from tsalign.engines import open_engine

        self.engine = open_engine(model, EngineConfig(engine="vllm", max_model_len=128))

    def call(self, method: str, *arguments: Any) -> Answered:
        finished: list[float] = []
        self.engine.counts.clear()
        answers = getattr(self.engine, method)(*arguments, done=finished.append)
        return Answered(answers, finished, dict(self.engine.counts))


Vllm = Callable[..., Answered]


@pytest.fixture(scope="session")
def vllm(ray_session: None, models: dict[str, Model]) -> Iterator[Vllm]:
    """Calls a method of one vLLM engine over the `policy` that all tests share, with room for 128 tokens."""
    import ray

    actor = ray.remote(num_cpus=0)(EngineActor).remote(models["policy"])
    yield lambda method, *arguments: ray.get(actor.call.remote(method, *arguments))
    ray.kill(actor)


@dataclass
class Log:
    """What a stage logged."""

    reports: list[dict[str, Any]] = field(default_factory=list)

    def __getitem__(self, name: str) -> Any:
        return next(report[name] for report in reversed(self.reports) if name in report)


@pytest.fixture
def make_stage(tmp_path: Path) -> Callable[..., tuple[Stage, Log]]:
    """A stage that writes below `tmp_path`, and its log."""

    def make(name: str = "stage", workers: int = 1, iteration: int = 1) -> tuple[Stage, Log]:
        log, place = Log(), Placement(replicas=workers)
        stage = Stage(
            run="test",
            name=f"{iteration}/{name}",
            iteration=iteration,
            fingerprint=fingerprint(name),
            seed=0,
            out=UPath(tmp_path) / name,
            work=UPath(tmp_path) / f".{name}",
            quarantine=UPath(tmp_path) / "quarantine" / name,
            resources=ResourceConfig(train_policy=place, train_student=place, score=place, mine=place),
            log=log.reports.append,
        )
        return stage, log

    return make
