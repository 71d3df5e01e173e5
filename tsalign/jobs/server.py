"""The job server of a cluster, and what keeps this machine from using it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tsalign.common.errors import TsalignError
from tsalign.runs.joining import no_token

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

CHATTY = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
    "ray._private.authentication.authentication_token_setup",
)
RUN, STORAGE = "tsalign.run", "tsalign.storage"  # what a job's metadata says of its run


@dataclass(frozen=True)
class Job:
    """A job that has a run.

    Attributes:
        status: Ray's word for it: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED.
        started: milliseconds since the epoch.
    """

    job: str
    run: str
    storage: str
    status: str
    started: int

    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.status in ("PENDING", "RUNNING")


def use_token(file: Path | None) -> None:
    """Ask clusters with the token in a file.

    Raises:
        TsalignError: no such file.
    """
    if file is None:
        return
    if not file.is_file():
        raise TsalignError(f"--token-file: {file}: no such file; on the head, `ray get-auth-token` prints the token.")
    # Ray reads both when it is imported.
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(file.absolute()))


def connect(address: str) -> JobSubmissionClient:
    """A client of the job server at `http://HEAD:8265`.

    Raises:
        TsalignError: it is no such address, nothing or something else answers there, it wants another token, or it has
            another version of Ray.
    """
    import ray
    from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
    from ray.job_submission import JobSubmissionClient

    if not address.startswith(("http://", "https://")):
        raise TsalignError(
            f"--address: {address}: expected the job server's, as http://HEAD:8265 (the port is that of the dashboard)."
        )
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)  # as `ray.init` does
    with answering(address):
        client = JobSubmissionClient(address)
        list(client.list_jobs())  # what asks for a token, where the version does not
    if (version := client._server_ray_version) != ray.__version__:
        raise TsalignError(
            f"--address: {address}: the cluster has Ray {version}, here it is {ray.__version__}; install the same one."
        )
    return client


def jobs(client: JobSubmissionClient) -> list[Job]:
    """The jobs that have runs, newest last."""
    found = [
        Job(str(one.submission_id), told[RUN], told[STORAGE], str(one.status.value), one.start_time or 0)
        for one in client.list_jobs()
        if RUN in (told := one.metadata or {})
    ]
    return sorted(found, key=lambda job: job.started)


@contextmanager
def answering(address: str) -> Iterator[None]:
    """Tells in our words why a job server does not answer as it should."""
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise TsalignError(f"{no_token(f'--address: {address}')} Or give the file with --token-file.") from error
    except (ConnectionError, requests.RequestException) as error:
        raise TsalignError(
            f"--address: {address}: no job server answers there; is it the dashboard's port, 8265, and does a tunnel "
            "or a firewall let it through?"
        ) from error
    except (RuntimeError, KeyError) as error:  # of no narrower class where the answer is not Ray's
        raise TsalignError(f"--address: {address}: what answers there is no job server of Ray: {error}") from error
