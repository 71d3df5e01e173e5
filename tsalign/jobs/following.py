"""Following a job to its end."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, TextIO

from tsalign.jobs.server import answering

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

POLL_SECONDS = 0.5
STOPPED = 143  # as a shell reports what SIGTERM ended
LAST_LINES = 20
MISSING = "No module named 'tsalign'"  # as Python says of `-m tsalign.cli`


def follow(client: JobSubmissionClient, job: str, to: TextIO = sys.stdout) -> int:
    """Write what a job says until it ends; its exit status.

    Where the connection to its log breaks, it is only waited for.

    Raises:
        TsalignError: the job server does not answer any more.
    """
    last: deque[str] = deque(maxlen=LAST_LINES)
    try:
        asyncio.run(_tail(client, job, to, last))
    except RuntimeError as error:  # of no narrower class
        print(f"the job's log broke off ({error}); waiting for its end", file=sys.stderr)
    with answering(client.get_address()):
        while not (status := client.get_job_status(job)).is_terminal():
            time.sleep(POLL_SECONDS)
        info = client.get_job_info(job)
    if status.value == "STOPPED":
        return STOPPED
    if info.driver_exit_code is None and status.value == "FAILED":  # it did not come to its first line
        print(info.message, file=sys.stderr)
    if any(MISSING in lines for lines in last):
        print("The cluster's nodes have no tsalign: install it there, or send yours with --package.", file=sys.stderr)
    return info.driver_exit_code if info.driver_exit_code is not None else int(status.value != "SUCCEEDED")


async def _tail(client: JobSubmissionClient, job: str, to: TextIO, last: deque[str]) -> None:
    """Write the log as it comes, and keep the last of it."""
    async for lines in client.tail_job_logs(job):
        to.write(lines)
        to.flush()
        last.append(lines)
