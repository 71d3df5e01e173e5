"""A cluster that is joined, and what keeps this process out of it: told at once, where Ray would wait two minutes."""

from __future__ import annotations

import json
import os
import platform
import re
import socket
from pathlib import Path

from tsalign.common.errors import TsalignError
from tsalign.common.storage import is_remote

ADDRESS = "RAY_ADDRESS"  # names the cluster to join; Ray sets it inside a job
ANSWER_SECONDS = 5.0
IN_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it for the driver of a job


def check_address(address: str) -> str:
    """The address itself, where it has the form of one.

    Raises:
        TsalignError: it has none.
    """
    if address.startswith(("http://", "https://")):
        raise TsalignError(
            f"{address}: is the address of a job server; a run joins a cluster by HOST:PORT, with the port of "
            "`ray start --head` (6379). To send a run there, use `tsalign submit`."
        )
    if address != "auto" and not re.fullmatch(r"[\w.\-]+:\d+|\[[\da-fA-F:]+\]:\d+", address):
        raise TsalignError(f"{address!r}: expected the address of a Ray cluster as HOST:PORT, such as 10.0.0.1:6379.")
    return address


def check_answer(address: str) -> None:
    """Nothing, where a cluster at `address` lets this process in.

    Raises:
        TsalignError: nothing answers there, it wants another token, or it has other versions of Ray or Python.
    """
    from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
    from ray._private.services import canonicalize_bootstrap_address_or_die
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.exceptions import AuthenticationError

    try:
        found = canonicalize_bootstrap_address_or_die(check_address(address))
        host, _, port = found.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except OSError as error:
        raise TsalignError(
            f"{ADDRESS}={address}: no Ray answers there ({error}); start one with `ray start --head`, or name another."
        ) from None
    maybe_enable_token_auth_if_token_available(warn_if_disabled=False)  # as `ray.init` does
    try:
        versions = json.loads(GcsClient(address=found).internal_kv_get(b"CLUSTER_METADATA", namespace=b"cluster"))
    except AuthenticationError as error:
        raise TsalignError(no_token(f"{ADDRESS}={address}")) from error
    if wrong := other_versions(versions):
        raise TsalignError(f"{ADDRESS}={address}: {wrong}")


def no_token(where: str) -> str:
    """What to do where a cluster refuses this process's token, or misses one."""
    return (
        f"{where}: no token, or a wrong one. On the head, `ray get-auth-token` prints the cluster's; set RAY_AUTH_MODE="
        "token, and put it into RAY_AUTH_TOKEN, or into a file that RAY_AUTH_TOKEN_PATH names."
    )


def other_versions(theirs: dict[str, str]) -> str:
    """What differs of a cluster's `ray_version` and `python_version`; empty where both are this process's."""
    import ray

    ours = {"ray_version": ray.__version__, "python_version": platform.python_version()}
    names = {"ray_version": "Ray", "python_version": "Python"}
    different = [name for name in names if theirs[name] != ours[name]]
    told = " and ".join(f"{names[name]} {theirs[name]}, here it is {ours[name]}" for name in different)
    return f"the cluster has {told}; install the same one." if told else ""


def check_storage_of_job(storage: str) -> None:
    """Nothing, but for a relative folder inside a job: Ray runs it in a copy of its files, and removes that.

    Raises:
        TsalignError: it is one.
    """
    if IN_A_JOB in os.environ:
        refuse_relative(storage, "inside a job it lies in Ray's temporary copy of the working directory")


def refuse_relative(storage: str, why: str) -> None:
    """Nothing, where a storage is the same place wherever it is asked for.

    Raises:
        TsalignError: it is a relative folder; with the line to add.
    """
    if not is_remote(storage) and not Path(storage.removeprefix("file://")).expanduser().is_absolute():
        raise TsalignError(
            f"storage: {storage}: {why}, and would go with it. Name storage that all nodes reach: add "
            "storage=s3://BUCKET/runs, or storage=/SHARED/runs."
        )
