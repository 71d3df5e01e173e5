"""A small TS-Align run with a node type for each kind of work."""

from __future__ import annotations

from typing import Any

from autoscaled import Kind

IDLE_SECONDS = 6.0
CONFIG: dict[str, Any] = {
    "recipe": "ts-align",
    "iterations": 1,
    "policy": {"model": "toy:policy"},
    "student": {"model": "toy:student"},
    "teacher": {"model": "toy:teacher", "node": "teacher", "cpus": 0.5, "idle_seconds": 5},
    "data": {"prompts": "toy:train", "prompts_per_iteration": 1200, "shard_size": 40},
    "sampling": {"engine": "hf", "k": 8, "max_tokens": 16, "max_model_len": 128},
    "distill": {"batch_size": 64, "learning_rate": 1e-3, "precision": "fp32"},
    "tune": {"reference": "previous", "epochs": 4, "batch_size": 16, "precision": "fp32", "checkpoint_steps": 20},
    "evaluation": {
        "sets": {"toy": "toy:test"},
        "judge": "tsalign.toy.oracle:grade",
        "prompts_per_set": 6,
    },
    "resources": {
        "sample": {"replicas": {"min": 1, "max": 3}, "node": "sampler"},
        "score": {"replicas": {"min": 1, "max": 3}, "node": "sampler"},
        "mine": {"node": "sampler", "cpus": 0.5},
        "train_policy": {"node": "trainer"},
        "train_student": {"node": "trainer"},
    },
}
KINDS = {"sampler": Kind(1, 3), "trainer": Kind(2, 1), "teacher": Kind(1, 1)}
