"""Typed configuration that recipes share: every key with its bounds and meaning, from YAML plus dotted overrides."""

from tsalign.config.base import (
    AlignConfig,
    DataConfig,
    EngineConfig,
    EvaluationConfig,
    Placement,
    ResourceConfig,
    RunConfig,
    SamplePlacement,
    SamplingConfig,
    WritingConfig,
)
from tsalign.config.loading import override, parse_assignments, read_yaml, validate
from tsalign.config.models import (
    OPERATIONAL,
    ConfigModel,
    EndpointConfig,
    ModelConfig,
    ServeConfig,
    TeacherConfig,
    WriterConfig,
)
from tsalign.config.training import (
    CustomTrainConfig,
    DPOTrainConfig,
    LogisticTrainConfig,
    MarginRankingTrainConfig,
    RewardTrainConfig,
    SFTTrainConfig,
    SimPOTrainConfig,
    TrainConfig,
)
from tsalign.config.values import run_name

__all__ = [
    "OPERATIONAL",
    "AlignConfig",
    "ConfigModel",
    "CustomTrainConfig",
    "DPOTrainConfig",
    "DataConfig",
    "EndpointConfig",
    "EngineConfig",
    "EvaluationConfig",
    "LogisticTrainConfig",
    "MarginRankingTrainConfig",
    "ModelConfig",
    "Placement",
    "ResourceConfig",
    "RewardTrainConfig",
    "RunConfig",
    "SFTTrainConfig",
    "SamplePlacement",
    "SamplingConfig",
    "ServeConfig",
    "SimPOTrainConfig",
    "TeacherConfig",
    "TrainConfig",
    "WriterConfig",
    "WritingConfig",
    "override",
    "parse_assignments",
    "read_yaml",
    "run_name",
    "validate",
]
