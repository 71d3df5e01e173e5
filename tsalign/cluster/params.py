"""The parameters of a cluster's manifests: `cluster/params.yaml`, typed."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from tsalign.config import ConfigModel, read_yaml, validate

LABEL = 63  # characters of a name in Kubernetes


def _dns_label(name: str) -> str:
    """`name` itself, where Kubernetes, the clouds and Ray take it as a name.

    Raises:
        ValueError: they do not.
    """
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) or len(name) > LABEL:
        raise ValueError(f"expected lower-case letters, digits and dashes, a letter first, at most {LABEL} characters")
    return name


def _address(given: str) -> str:
    """`given` itself, where it is an IP address.

    Raises:
        ValueError: it is none.
    """
    return str(ip_address(given))


def _plain(text: str) -> str:
    """`text` itself, where it can stand in YAML and in a shell's line as it is.

    Raises:
        ValueError: it holds quotes, white space or other signs.
    """
    if not re.fullmatch(r"[A-Za-z0-9._~/:@=+-]+", text):
        raise ValueError("expected letters, digits and . _ ~ / : @ = + - only")
    return text


Name = Annotated[str, AfterValidator(_dns_label)]
Address = Annotated[str, AfterValidator(_address)]
Plain = Annotated[str, AfterValidator(_plain)]


class NodeSize(ConfigModel):
    """What Ray may use of a node."""

    cpus: int = Field(ge=1, description="CPUs.")
    memory: int = Field(ge=1, description="GiB of memory.")
    aws: Plain = Field(description="Instance type.")
    gcp: Plain = Field(description="Machine type.")


class Pool(NodeSize):
    """Nodes of one kind, from none to `max`."""

    max: int = Field(ge=1, description="Nodes at most.")
    gpus: int = Field(ge=1, description="GPUs of a node.")
    gpu: Plain = Field(description="Their name, as the label `nvidia.com/gpu.product` of Kubernetes nodes has it.")
    spot: bool = Field(False, description="Take nodes that the cloud may take back, for less.")


class Aws(ConfigModel):
    """Where on AWS."""

    region: Plain
    image: Plain = Field(description="AMI of every node.")
    instance_profile: Plain = Field(description="ARN of the identity of every node.")


class Gcp(ConfigModel):
    """Where on Google Cloud."""

    project: Plain
    zone: Plain
    image: Plain = Field(description="Boot image of every node.")

    @property
    def region(self) -> str:
        """That the zone is in."""
        return self.zone.rpartition("-")[0]


class OnPrem(ConfigModel):
    """Machines of your own."""

    user: Plain = Field(description="Logs in by SSH.")
    key: Plain = Field(description="Private key file of the user.")
    head: Address
    workers: dict[Address, list[Name]] = Field(min_length=1, description="Address of a machine -> its pools.")


class Models(ConfigModel):
    """A volume that all pods mount, for downloaded models."""

    claim: Name
    size: Plain
    storage_class: Name


class ServedTeacher(ConfigModel):
    """A teacher that stays, whatever runs."""

    model: Plain
    pool: Name = Field(description="Its pool; a replica takes a whole node.")
    secret: Name


class Kubernetes(ConfigModel):
    """Where on Kubernetes."""

    namespace: Name
    token_secret: Name
    service_account: Name
    models: Models
    teacher: ServedTeacher


class ClusterParams(ConfigModel):
    """All that the manifests of a cluster are made of."""

    name: Name
    image: Plain = Field(description="Container image of every node.")
    bucket: Plain = Field(description="`storage` of runs.")
    idle_seconds: int = Field(60, ge=1, description="Seconds without work after which a node goes.")
    head: NodeSize
    pools: dict[Name, Pool] = Field(min_length=1, description="Name of a pool, which `node` in configs names.")
    aws: Aws
    gcp: Gcp
    onprem: OnPrem
    kubernetes: Kubernetes

    @model_validator(mode="after")
    def _pools_that_are_named_exist(self) -> Self:
        named = {f"onprem.workers.{machine}": pools for machine, pools in self.onprem.workers.items()}
        for key, pools in {**named, "kubernetes.teacher.pool": [self.kubernetes.teacher.pool]}.items():
            if unknown := sorted(set(pools) - set(self.pools)):
                raise ValueError(f"{key}: no pool {unknown[0]}; expected one of {', '.join(self.pools)}")
        return self


def read_params(path: Path) -> ClusterParams:
    """The parameters in a file.

    Raises:
        TsalignError: no such file, not YAML, or a key that is unknown, missing or wrong; with the nearest valid one.
    """
    return validate(ClusterParams, read_yaml(path), str(path))
