"""Typed configuration: every key with its bounds and meaning, from YAML plus dotted overrides."""

from tsalign.config.arte import AnsweringConfig, ARTEConfig, DraftConfig, ItemsConfig, PairConfig
from tsalign.config.base import (
    AlignConfig,
    DataConfig,
    EvaluationConfig,
    Placement,
    ResourceConfig,
    RunConfig,
    SamplePlacement,
    SamplingConfig,
    WritingConfig,
)
from tsalign.config.citing import CITINGConfig, RubricsConfig
from tsalign.config.evaluate import EvaluateConfig
from tsalign.config.loading import override, parse_assignments, read_yaml, validate
from tsalign.config.models import EndpointConfig, ModelConfig, Section, ServeConfig, TeacherConfig, WriterConfig
from tsalign.config.pad import PADConfig, PADTrainConfig, TeacherScoreConfig
from tsalign.config.training import DPOTrainConfig, RewardTrainConfig, SFTTrainConfig, TrainConfig
from tsalign.config.ts_align import MiningConfig, TSAlignConfig

__all__ = [
    "ARTEConfig",
    "AlignConfig",
    "AnsweringConfig",
    "CITINGConfig",
    "DPOTrainConfig",
    "DataConfig",
    "DraftConfig",
    "EndpointConfig",
    "EvaluateConfig",
    "EvaluationConfig",
    "ItemsConfig",
    "MiningConfig",
    "ModelConfig",
    "PADConfig",
    "PADTrainConfig",
    "PairConfig",
    "Placement",
    "ResourceConfig",
    "RewardTrainConfig",
    "RubricsConfig",
    "RunConfig",
    "SFTTrainConfig",
    "SamplePlacement",
    "SamplingConfig",
    "Section",
    "ServeConfig",
    "TSAlignConfig",
    "TeacherConfig",
    "TeacherScoreConfig",
    "TrainConfig",
    "WriterConfig",
    "WritingConfig",
    "override",
    "parse_assignments",
    "read_yaml",
    "validate",
]
