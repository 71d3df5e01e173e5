"""A run sent to a cluster as a job."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tsalign.common.errors import TsalignError
from tsalign.config import RunConfig
from tsalign.jobs.packing import CONFIG, Luggage, pack
from tsalign.jobs.server import RUN, STORAGE, jobs

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

DRIVER = 0.0001  # of a custom resource that marks nodes, what the driver takes
COPIES = {"s3": "aws s3 cp --recursive {place} {run}", "gs": "gcloud storage cp -r {place} {run}"}


@dataclass(frozen=True)
class Submitted:
    """A job that was sent."""

    job: str
    run: str
    storage: str
    address: str

    def lines(self) -> dict[str, str]:
        """What follows, stops, shows and fetches it, for a terminal."""
        to, place = f"--address {self.address}", f"{self.storage.rstrip('/')}/{self.run}"
        host = urlsplit(self.address).hostname
        copy = COPIES.get(self.storage.partition("://")[0], f"rsync -a {host}:{{place}}/ {{run}}")
        return {
            "follow": f"ray job logs --follow {to} {self.job}",
            "stop": f"ray job stop {to} {self.job}",
            "show": f"tsalign show {self.run} --storage {shlex.quote(self.storage)}",
            "fetch": copy.format(place=shlex.quote(place), run=self.run),
        }


def submit(
    client: JobSubmissionClient,
    address: str,
    config: RunConfig,
    name: str,
    environment: Sequence[str] = (),
    package: bool = False,
    node: str | None = None,
    retry_failed: bool = False,
) -> Submitted:
    """Send a run; nothing travels but its config, the local files that it names, and what is listed here.

    Args:
        name: of the run; where there is one, the job resumes it.
        environment: names of variables that the job and its workers get, with the values that they have here.
        package: send the tsalign that is installed here, for nodes without one.
        node: custom resource, or label as KEY=VALUE, of the node that the driver runs on; None for the head.
        retry_failed: ask again also for failed rows that were answered badly.

    Raises:
        TsalignError: as `pack`; a variable is not set; or another job drives this run.
    """
    if unset := [variable for variable in environment if variable not in os.environ]:
        raise TsalignError(f"--env {unset[0]}: is not set here; export it first.")
    for job in jobs(client):
        if job.alive() and (job.run, job.storage) == (name, config.storage):
            raise TsalignError(
                f"run {name} is already running: job {job.job} drives it. Follow it with "
                f"`ray job logs --follow --address {address} {job.job}`, or stop it first."
            )
    luggage = pack(config, name, Path.cwd())
    with tempfile.TemporaryDirectory(prefix="tsalign-job-") as folder:
        luggage.write(Path(folder))
        runtime: dict[str, Any] = {"working_dir": folder}
        if environment:
            runtime["env_vars"] = {variable: os.environ[variable] for variable in environment}
        if package:
            runtime["py_modules"] = installed()
        job_id = client.submit_job(
            entrypoint=entrypoint(luggage, retry_failed),
            runtime_env=runtime,
            metadata={RUN: name, STORAGE: config.storage},
            **where(node),
        )
    return Submitted(job_id, name, config.storage, address)


def entrypoint(luggage: Luggage, retry_failed: bool = False) -> str:
    """What the job's shell runs."""
    run = f"exec python -m tsalign.cli run {CONFIG}" + " --retry-failed" * retry_failed
    return f"python -m tsalign.jobs.unpack && {run}" if luggage.inputs() else run


def where(node: str | None) -> dict[str, Any]:
    """What Ray is told of the driver's node."""
    if node is None:
        return {}
    key, labelled, value = node.partition("=")
    return {"entrypoint_label_selector": {key: value}} if labelled else {"entrypoint_resources": {node: DRIVER}}


def installed() -> list[str]:
    """The folders of the tsalign that is installed here: the package, and what tells its version and entry points."""
    from importlib.metadata import distribution

    package = Path(__file__).parents[1]
    found = getattr(distribution("tsalign"), "_path", None)  # of no public name
    return [str(package), *([str(found)] if found else [])]
