"""Typed configuration: every key with its bounds and meaning, from YAML plus dotted overrides."""

from tsalign.config.base import (
    AlignConfig,
    DataConfig,
    EvaluationConfig,
    Placement,
    ResourceConfig,
    RunConfig,
    SamplePlacement,
    SamplingConfig,
)
from tsalign.config.loading import override, parse_assignments, read_yaml, validate
from tsalign.config.models import EndpointConfig, ModelConfig, Section, TeacherConfig, WriterConfig
from tsalign.config.training import DPOTrainConfig, RewardTrainConfig, SFTTrainConfig, TrainConfig
from tsalign.config.ts_align import MiningConfig, TSAlignConfig

__all__ = [
    "AlignConfig",
    "DPOTrainConfig",
    "DataConfig",
    "EndpointConfig",
    "EvaluationConfig",
    "MiningConfig",
    "ModelConfig",
    "Placement",
    "ResourceConfig",
    "RewardTrainConfig",
    "RunConfig",
    "SFTTrainConfig",
    "SamplePlacement",
    "SamplingConfig",
    "Section",
    "TSAlignConfig",
    "TeacherConfig",
    "TrainConfig",
    "WriterConfig",
    "override",
    "parse_assignments",
    "read_yaml",
    "validate",
]
