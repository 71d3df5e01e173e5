"""DeepSpeed: the engine that a worker steps, its checkpoints, and the model that comes out of it."""

from __future__ import annotations

import tempfile
from typing import Any

import deepspeed
import ray.train
import torch
import torch.distributed as dist
from deepspeed import DeepSpeedEngine
from deepspeed.accelerator import get_accelerator, set_accelerator
from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator
from ray.train import Checkpoint
from transformers import PreTrainedTokenizerBase
from transformers.integrations import HfDeepSpeedConfig
from upath import UPath

from tsalign.common.storage import put_folder
from tsalign.config import TrainConfig
from tsalign.data.loading import load
from tsalign.training.finite import check_weight
from tsalign.training.job import Job

TAG = "checkpoint"


class GlooAccelerator(CPU_Accelerator):
    """The CPU with gloo's collectives; those of DeepSpeed in shared memory would first be compiled for 40 s."""

    def create_op_builder(self, op_name: str) -> Any:
        """None for what is not to be built."""
        return None if op_name == "ShareMemCommBuilder" else super().create_op_builder(op_name)


def start_engine(job: Job) -> tuple[DeepSpeedEngine, PreTrainedTokenizerBase]:
    """Load the model into an engine; at ZeRO stage 3 each worker loads its part only.

    Raises:
        TsalignError: the model or its tokenizer cannot be used.
    """
    if get_accelerator().device_name() == "cpu":
        set_accelerator(GlooAccelerator())
    deepspeed.init_distributed(dist.get_backend(), auto_mpi_discovery=False)
    config = settings(job.config)
    partitioned = HfDeepSpeedConfig(config) if job.config.zero_stage == 3 else None  # alive while the model loads
    precision = torch.bfloat16 if job.config.precision == "bf16" else torch.float32
    model, tokenizer = load(job.model, job.objective.model, precision, fresh_head=job.objective.model == "reward")
    del partitioned
    if job.config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return deepspeed.initialize(model=model.train(), model_parameters=parameters, config=config)[0], tokenizer


def settings(config: TrainConfig) -> dict[str, Any]:
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


def checkpoint(engine: DeepSpeedEngine, step: int) -> None:
    """Every worker saves its part; Ray Train joins the parts into one checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        engine.save_checkpoint(folder, tag=TAG, client_state={"step": step})
        ray.train.report({"step": step}, checkpoint=Checkpoint.from_directory(folder))


def restore(engine: DeepSpeedEngine, saved: Checkpoint | None) -> int:
    """The step to resume from: 0 without a checkpoint."""
    if saved is None:
        return 0
    with saved.as_directory() as folder:
        _, state = engine.load_checkpoint(folder, tag=TAG)
    return int(state["step"])


def export(engine: DeepSpeedEngine, tokenizer: PreTrainedTokenizerBase, job: Job, rank: int) -> None:
    """Gather the weights, one parameter at a time, and write a Hugging Face folder.

    Raises:
        TsalignError: a weight is not finite.
    """
    weights = {}
    for name, parameter in engine.module.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter], enabled=engine.zero_optimization_partition_weights()):
            if rank == 0:
                weights[name] = parameter.detach().cpu().clone()
                check_weight(name, weights[name], job)
    if rank == 0:
        with tempfile.TemporaryDirectory() as folder:
            engine.module.save_pretrained(folder, state_dict=weights)
            tokenizer.save_pretrained(folder)
            put_folder(folder, UPath(job.out))
    dist.barrier()
