"""Drivers on a cluster: each is a Ray job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from upath import UPath

from tsalign import api
from tsalign.common.storage import resolve
from tsalign.config import RunConfig, read_yaml
from tsalign.jobs.following import MISSING
from tsalign.jobs.server import connect, jobs
from tsalign.jobs.submitting import submit
from tsalign.session.drivers import Driver, Here

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient


class JobDriver:
    """A job that drives a run."""

    def __init__(self, client: JobSubmissionClient, address: str, job: str) -> None:
        self.client, self.job = client, job
        self.log = f"ray job logs --address {address} {job}"

    def running(self) -> bool:
        """Whether it has not ended."""
        return not self.client.get_job_status(self.job).is_terminal()

    def ending(self) -> str:
        """As the job server knows it."""
        return {"FAILED": "failed", "STOPPED": "stopped"}.get(self.client.get_job_status(self.job).value, "")

    def stop(self) -> None:
        """With SIGTERM."""
        self.client.stop_job(self.job)

    def said(self) -> str:
        """What it wrote; what Ray says of it where it did not come so far."""
        written = self.client.get_job_logs(self.job).strip()
        if MISSING in written:
            return "the cluster's nodes have no tsalign: install it there, or open the session with package=True."
        return written or str(self.client.get_job_info(self.job).message)


class Cluster:
    """Drivers as jobs of the cluster whose job server has an address; with `package` they bring this tsalign along."""

    def __init__(self, address: str, package: bool = False) -> None:
        self.address, self.package = address, package
        self.client = connect(address)

    def start(self, config: RunConfig, name: str, retry_failed: bool) -> JobDriver:
        """See `Drivers`.

        Raises:
            TsalignError: what keeps the run from the cluster.
        """
        sent = submit(self.client, self.address, config, name, package=self.package, retry_failed=retry_failed)
        return JobDriver(self.client, self.address, sent.job)

    def resume(self, folder: UPath, retry_failed: bool) -> JobDriver:
        """See `Drivers`."""
        kept = api.load({**read_yaml(folder / "config.yaml"), "run": folder.name}, {})
        return self.start(kept, folder.name, retry_failed)

    def find(self, folder: UPath) -> Driver | None:
        """The newest job of the run that has not ended; one that is driven otherwise is found on its machine only."""
        alive = [job for job in jobs(self.client) if job.alive() and resolve(job.storage) / job.run == folder]
        return JobDriver(self.client, self.address, alive[-1].job) if alive else Here().find(folder)
