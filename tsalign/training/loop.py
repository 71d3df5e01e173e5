"""The training loop: one for every objective. Runs in each worker of a Ray Train `TorchTrainer`."""

from __future__ import annotations

import time
from collections import Counter

import torch
import torch.distributed as dist
from deepspeed import DeepSpeedEngine
from ray.train import Checkpoint
from transformers import PreTrainedTokenizerBase
from upath import UPath

from tsalign.common.storage import atomic
from tsalign.data.tensors import padding_id
from tsalign.training import first_batch
from tsalign.training.encoding import encode_all
from tsalign.training.engine import checkpoint, export, restore, start_engine
from tsalign.training.examples import ExampleStore, collate
from tsalign.training.finite import check_gradient, check_loss
from tsalign.training.job import Job
from tsalign.training.reports import Begins
from tsalign.training.schedule import MicroBatch, learning_rate, micro_batches, step_indices, total_steps


def run(job: Job, saved: Checkpoint | None = None) -> None:
    """Train from a checkpoint, or from the start, and export the model. A process group is there already.

    Raises:
        TsalignError: the model cannot be used, no row became an example, or loss, gradient or weights are not finite.
    """
    rank, workers = dist.get_rank(), dist.get_world_size()

    def report(what: Begins | dict[str, float]) -> None:
        if rank == 0:
            job.reports.put(what)

    report(Begins("load"))
    torch.manual_seed(job.seed)
    engine, tokenizer = start_engine(job)
    report(Begins("encode"))
    examples = encode_all(job, tokenizer, rank, workers)
    report(Begins("work"))
    steps, first = total_steps(len(examples), job.config), restore(engine, saved)
    report({"step": first, "steps": steps, "examples": len(examples)})
    for step, indices in enumerate(step_indices(len(examples), job.config, job.seed, first), first):
        began = time.monotonic()
        torch.manual_seed(job.seed + step)  # dropout of a resumed training equals that of an uninterrupted one
        rate = learning_rate(step, steps, job.config)
        for group in engine.optimizer.param_groups:
            group["lr"] = rate
        longest, width = examples.longest[indices], examples.width[indices]
        share = micro_batches(indices, longest.tolist(), width.tolist(), job.config.batch_tokens, workers)[rank]
        if step == rank == 0:
            _record(job, examples, share[0], tokenizer)
        metrics = _step(engine, job, step, examples, share, indices, padding_id(tokenizer))
        check_gradient(engine, job, step)
        speed = int((longest * width).sum()) / (time.monotonic() - began)
        report({"step": step + 1, "steps": steps, **metrics, "rate": rate, "tokens_per_second": speed})
        if (step + 1) % job.config.checkpoint_steps == 0 and step + 1 < steps:
            checkpoint(engine, step + 1)
    report(Begins("commit"))
    export(engine, tokenizer, job, rank)


def _record(job: Job, examples: ExampleStore, micro: MicroBatch, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write the first batch beside the model that will come, and to the worker's log."""
    batch = collate(examples.take(micro.indices), micro.weights, padding_id(tokenizer), torch.device("cpu"))
    text = first_batch.describe(batch, job.objective, tokenizer)
    print(text)
    with atomic(UPath(job.out) / "first_batch.txt") as file:
        file.write_text(text)


def _step(
    engine: DeepSpeedEngine,
    job: Job,
    step: int,
    examples: ExampleStore,
    share: list[MicroBatch],
    indices: list[int],
    padding: int,
) -> dict[str, float]:
    """One worker's part of an optimiser step on the examples at `indices`. Returns means over all workers."""
    size = float(examples.response_tokens[indices].sum()) if job.objective.per == "token" else len(indices)
    # DeepSpeed averages gradients over the workers; the loss is a mean over the step's examples or tokens.
    scale, sums = dist.get_world_size() / size, Counter[str]()
    for number, micro in enumerate(share, 1):
        batch = collate(examples.take(micro.indices), micro.weights, padding, engine.device)
        engine.set_gradient_accumulation_boundary(number == len(share))
        loss, report = job.objective.loss(engine, batch)
        engine.backward(loss * scale)
        value = loss.item()
        check_loss(value, job, step)
        engine.step()
        sums.update({"loss": value, **{name: value.item() for name, value in report.items()}})
    return _reduced(sums, size, engine.device)


def _reduced(sums: Counter[str], size: float, device: torch.device) -> dict[str, float]:
    """Sums of all workers over the size of the step."""
    names = sorted(sums)
    total = torch.tensor([sums[name] for name in names], dtype=torch.float64 if device.type == "cpu" else torch.float32)
    total = total.to(device)
    dist.all_reduce(total)
    return dict(zip(names, (total / size).tolist()))
