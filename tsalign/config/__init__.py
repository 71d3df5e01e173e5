"""Typed configuration that recipes share: every key with its bounds and meaning, from YAML plus dotted overrides."""

from tsalign.config.base import (
    AlignConfig,
    DataConfig,
    EngineConfig,
    EvaluationConfig,
    JudgingConfig,
    RunConfig,
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
from tsalign.config.placement import Placement, Range, ResourceConfig, SamplePlacement
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
    "JudgingConfig",
    "LogisticTrainConfig",
    "MarginRankingTrainConfig",
    "ModelConfig",
    "Placement",
    "Range",
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
