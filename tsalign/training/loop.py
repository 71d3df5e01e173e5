"""The training loop: one for every objective. Runs in each worker of a Ray Train `TorchTrainer`."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import deepspeed
import ray.train
import torch
import torch.distributed as dist
from transformers.integrations import HfDeepSpeedConfig
from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.common.storage import put_folder
from tsalign.config import TrainConfig
from tsalign.data.loading import load
from tsalign.data.shards import Row, iterate, read_counts, read_rows
from tsalign.data.tensors import padding_id
from tsalign.training.examples import Example, ExampleStore, collate, sample_replay, save_examples
from tsalign.training.job import Job
from tsalign.training.schedule import MicroBatch, learning_rate, micro_batches, step_indices, total_steps

TAG = "checkpoint"


def run(job: Job) -> None:
    """Train from the last checkpoint, or from the start, and export the model."""
    rank, workers = ray.train.get_context().get_world_rank(), ray.train.get_context().get_world_size()
    torch.manual_seed(job.seed)
    zero = deepspeed_config(job.config)
    partitioned = HfDeepSpeedConfig(zero) if job.config.zero_stage == 3 else None  # alive while the model loads
    precision = torch.bfloat16 if job.config.precision == "bf16" else torch.float32
    model, tokenizer = load(job.model, job.objective.model, precision)
    del partitioned
    if job.config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    examples = _prepare(job, tokenizer, rank, workers)
    engine = _engine(model, zero)
    steps, start = total_steps(len(examples), job.config), _restore(engine)
    if rank == 0:
        job.reports.put({"step": start, "steps": steps, "examples": len(examples)})
    for step, indices in enumerate(step_indices(len(examples), job.config, job.seed, start), start):
        began = time.monotonic()
        torch.manual_seed(job.seed + step)  # dropout of a resumed training equals that of an uninterrupted one
        rate = learning_rate(step, steps, job.config)
        for group in engine.optimizer.param_groups:
            group["lr"] = rate
        share = micro_batches(
            indices,
            examples.longest[indices].tolist(),
            examples.width[indices].tolist(),
            job.config.batch_tokens,
            workers,
        )[rank]
        per_token = job.objective.per == "token"
        size = float(examples.response_tokens[indices].sum()) if per_token else len(indices)
        # DeepSpeed averages gradients over the workers; the loss is a mean over the step's examples or tokens.
        sums = _step(engine, job, examples, share, workers / size, padding_id(tokenizer))
        metrics = _reduced(sums, size, engine.device)
        if rank == 0:
            tokens = int((examples.longest[indices] * examples.width[indices]).sum())
            speed = tokens / (time.monotonic() - began)
            job.reports.put({"step": step + 1, "steps": steps, **metrics, "rate": rate, "tokens_per_second": speed})
        if (step + 1) % job.config.checkpoint_steps == 0 and step + 1 < steps:
            _checkpoint(engine, step + 1)
    _export(engine, tokenizer, job.out, rank)


def deepspeed_config(config: TrainConfig) -> dict[str, Any]:
    """The DeepSpeed settings of a training. Accumulation is the loop's own, so that batches may vary in size."""
    zero: dict[str, Any] = {"stage": config.zero_stage}
    if config.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.clip,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": config.precision == "bf16"},
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": config.learning_rate,
                "betas": list(config.betas),
                "weight_decay": config.weight_decay,
                "torch_adam": True,
            },
        },
    }


def _prepare(job: Job, tokenizer: Any, rank: int, workers: int) -> ExampleStore:
    """Encode every row once, each worker its share of the shards, and map all of them in the shards' order."""
    shards = [shard for dataset in job.datasets for shard in dataset.shards()]
    files = [UPath(job.work) / "examples" / f"{index:05d}.arrow" for index in range(len(shards) + bool(job.replay))]
    for index in range(rank, len(files), workers):
        if not files[index].exists():
            rows = read_rows(shards[index]) if index < len(shards) else _replayed(job)
            save_examples(files[index], _encoded(job, rows, tokenizer))
    dist.barrier()
    examples = ExampleStore(files)
    if not len(examples):
        raise TsalignError(
            f"{job.out}: nothing to train on: no row became an example of at most {job.config.max_length} tokens; "
            "look at the counts of the stage before, or raise max_length."
        )
    return examples


def _replayed(job: Job) -> list[Row]:
    """Earlier rows, `replay_share` for each new one."""
    new = sum(read_counts(dataset)["rows"] for dataset in job.datasets)
    return sample_replay(iterate(job.replay), round(job.replay_share * new), job.seed)


def _encoded(job: Job, rows: list[Row], tokenizer: Any) -> Iterator[Example]:
    for row in rows:
        example = job.objective.encode(row, tokenizer)
        if example and max(map(len, example.sequences)) <= job.config.max_length:
            yield example


def _engine(model: Any, settings: dict[str, Any]) -> Any:
    # On CPU DeepSpeed would compile a shared-memory collective for 40 s; gloo does without.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist.get_backend(), auto_mpi_discovery=False)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return deepspeed.initialize(model=model.train(), model_parameters=parameters, config=settings)[0]


def _step(
    engine: Any, job: Job, examples: ExampleStore, share: list[MicroBatch], scale: float, padding: int
) -> Counter[str]:
    """One worker's part of an optimiser step. Returns sums over its examples."""
    sums: Counter[str] = Counter()
    for index, micro in enumerate(share):
        batch = collate(examples.take(micro.indices), micro.weights, padding, engine.device)
        engine.set_gradient_accumulation_boundary(index == len(share) - 1)
        loss, report = job.objective.loss(engine, batch)
        engine.backward(loss * scale)
        engine.step()
        sums.update({"loss": loss.item(), **{name: value.item() for name, value in report.items()}})
    return sums


def _reduced(sums: Counter[str], size: float, device: torch.device) -> dict[str, float]:
    """Sums of all workers over the size of the step."""
    names = sorted(sums)
    total = torch.tensor([sums[name] for name in names], dtype=torch.float64 if device.type == "cpu" else torch.float32)
    total = total.to(device)
    dist.all_reduce(total)
    return dict(zip(names, (total / size).tolist()))


def _checkpoint(engine: Any, step: int) -> None:
    """Every worker saves its part; Ray Train joins the parts into one checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        engine.save_checkpoint(folder, tag=TAG, client_state={"step": step})
        ray.train.report({"step": step}, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _restore(engine: Any) -> int:
    """The step to go on from: 0 without a checkpoint."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as folder:
        _, state = engine.load_checkpoint(folder, tag=TAG)
    return int(state["step"])


def _export(engine: Any, tokenizer: Any, out: str, rank: int) -> None:
    """Gather the weights, one parameter at a time, and write a Hugging Face folder."""
    weights = {}
    for name, parameter in engine.module.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter], enabled=engine.zero_optimization_partition_weights()):
            if rank == 0:
                weights[name] = parameter.detach().cpu().clone()
    if rank == 0:
        with tempfile.TemporaryDirectory() as folder:
            engine.module.save_pretrained(folder, state_dict=weights)
            tokenizer.save_pretrained(folder)
            put_folder(folder, UPath(out))
    dist.barrier()
