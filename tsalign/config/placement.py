"""Where stages run: how many actors or workers, how big, and on which nodes."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from tsalign.config.models import ConfigModel
from tsalign.config.values import Gpus, Node, gpus


class Range(ConfigModel):
    """A number that follows the nodes that there are."""

    min: int = Field(1, ge=1, description="The least with which the stage can be done.")
    max: int = Field(ge=1, description="The most that are wanted.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is more than max {self.max}")
        return self


class Placement(ConfigModel):
    """Actors of one kind: how many, how big and where."""

    replicas: Annotated[int, Field(ge=1)] | Range = Field(
        1,
        description="Actors, or workers of a training. Actors begin with the first that fits, and more join as nodes "
        "come; `{min, max}` lets a cluster that has no room for all do with fewer. What asks a teacher that the run "
        "serves has `min` actors: its replicas are what grows then.",
    )
    cpus: float = Field(1.0, ge=0, description="CPUs of each.")
    gpus: Gpus = Field(0.0, ge=0, description="GPUs of each; a fraction shares a GPU between actors.")
    node: Node | None = Field(
        None,
        description="The nodes that may be used: the name of a custom resource that they have, or labels, as "
        "`{key: value}`. None is any node.",
    )

    @property
    def least(self) -> int:
        """Replicas without which the stage cannot be done."""
        return self.replicas.min if isinstance(self.replicas, Range) else self.replicas

    @property
    def most(self) -> int:
        """Replicas that are wanted."""
        return self.replicas.max if isinstance(self.replicas, Range) else self.replicas

    @property
    def actor_gpus(self) -> float:
        """GPUs of one actor."""
        return self.gpus


class SamplePlacement(Placement):
    """Actors that write: how many, how big and where."""

    tensor_parallel: int = Field(
        1, ge=1, description="GPUs that a vLLM model is split over; each actor then takes this many times `gpus`."
    )

    @property
    def actor_gpus(self) -> float:
        """GPUs of one actor."""
        return self.gpus * self.tensor_parallel

    @model_validator(mode="after")
    def _whole_gpus_together(self) -> Self:
        gpus(self.actor_gpus)
        return self


class ResourceConfig(ConfigModel):
    """Where stages run. Changing it invalidates no finished stage."""

    sample: SamplePlacement = Field(SamplePlacement(), description="Actors in which a model writes.")
    score: Placement = Field(Placement(), description="Actors in which a model scores: student, judge, reference.")
    mine: Placement = Field(
        Placement(),
        description="Actors without a model: they build preferences, and query the teacher service or an API.",
    )
    train_policy: Placement = Field(Placement(), description="Workers that train the policy.")
    train_student: Placement = Field(Placement(), description="Workers that train the student.")
    train_teacher: Placement = Field(Placement(), description="Workers that train the teacher.")
    wait_seconds: float = Field(
        300,
        gt=0,
        description="Seconds to wait for the autoscaler's nodes before the run stops and says what is missing.",
    )
