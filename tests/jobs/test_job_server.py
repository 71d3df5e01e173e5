"""A real cluster with its job server and token, and runs that are submitted, followed, stopped and submitted again."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml
from driver import Driver, parts, row_hashes, rows_of
from upath import UPath

from tsalign.runs.artifacts import Model
from tsalign.runs.ledger import Ledger

pytestmark = pytest.mark.ray
BIN = Path(sys.executable).parent
PATIENCE_SECONDS = 240


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on, above those that Ray gives its workers."""
    with ExitStack() as held:
        found = []
        for port in range(20_000 + secrets.randbelow(10_000), 32_000):
            one = held.enter_context(socket.socket())
            if len(found) < number and one.connect_ex(("127.0.0.1", port)):
                found.append(port)
            if len(found) == number:
                break
    return found


@dataclass(frozen=True)
class Cluster:
    """A head, and a folder from which runs are submitted."""

    address: str
    gcs: str
    token: Path
    here: Path
    storage: Path

    def tsalign(self, *arguments: object, token: Path | None = None, **variables: str) -> subprocess.CompletedProcess:
        """A command here; `submit` and `jobs` get address and token."""
        named = arguments[0] in ("submit", "jobs")
        server = ("--address", self.address, "--token-file", token or self.token) if named else ()
        plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        return subprocess.run(
            [str(BIN / "tsalign"), *map(str, (*arguments, *server))],
            cwd=self.here,
            env=plain | variables,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )

    def submit(self, name: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess:
        """Submit the held recipe."""
        return self.tsalign("submit", "held.yaml", f"run={name}", *arguments, **variables)

    def jobs(self) -> list[dict[str, Any]]:
        return json.loads(self.tsalign("jobs", "--json").stdout)

    def until(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not ready():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def stop(self, job: str) -> None:
        """Stop a job as the line that `submit` prints does, and wait for its end."""
        variables = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token)}
        command = [str(BIN / "ray"), "job", "stop", "--address", self.address, job]
        subprocess.run(command, env=variables, check=True, capture_output=True, timeout=PATIENCE_SECONDS)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head of its own: ports, folder, token and process group; nothing else on this machine is touched."""
    folder = tmp_path_factory.mktemp("cluster")
    gcs, dashboard, agent, client, metrics = free_ports(5)
    rays = tempfile.mkdtemp(prefix="tsj", dir="/tmp")  # a socket's path has few characters
    (folder / "token").write_text(secrets.token_hex(32))
    command = [str(BIN / "ray"), "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=3"]
    ports = [f"--port={gcs}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
    ports += [f"--ray-client-server-port={client}", f"--metrics-export-port={metrics}", f"--temp-dir={rays}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "PATH": f"{BIN}:{os.environ['PATH']}",
    }
    with (folder / "log").open("w") as log:
        head = subprocess.Popen([*command, *ports], env=environment, stdout=log, stderr=log, start_new_session=True)
    here, storage = folder / "here", folder / "runs"
    here.mkdir()
    storage.mkdir()
    shutil.copy(Path(__file__).parent / "held.py", here)
    (here / "unnamed.txt").write_text("stays here")
    config = {"recipe": "held:held", "storage": str(storage), "loggers": []}
    (here / "held.yaml").write_text(yaml.safe_dump(config))
    made = Cluster(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{gcs}", folder / "token", here, storage)
    try:
        made.until(lambda: head.poll() is not None or answers(made.address))
        assert head.poll() is None, (folder / "log").read_text()[-3000:]
        yield made
    finally:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait()
        shutil.rmtree(rays, ignore_errors=True)


def answers(address: str) -> bool:
    try:
        with urlopen(f"{address}/api/version", timeout=1):
            return True
    except OSError as error:
        return getattr(error, "code", 0) in (401, 403)


@pytest.fixture
def storage(cluster: Cluster) -> Path:
    """The storage, in which nothing is at work and nothing may go on."""
    for mark in ("go", "at-work"):
        (cluster.storage / mark).unlink(missing_ok=True)
    return cluster.storage


def state(run: Path) -> str:
    return (Ledger(UPath(run) / "ledger.jsonl").run_state() or {}).get("run", "")


def test_a_run_is_submitted_and_followed(cluster: Cluster, storage: Path) -> None:
    (storage / "go").touch()
    asked = ["asked=[SENT, KEPT]", "--env", "SENT", "--follow"]
    sent = cluster.submit("first", *asked, SENT="travels", KEPT="does not travel")
    assert sent.returncode == 0, sent.stdout + sent.stderr
    job = re.search(r"^job +(\S+)$", sent.stdout, re.MULTILINE)
    assert job
    assert f"run     first in {storage}" in sent.stdout
    assert "travels" not in sent.stdout + sent.stderr
    for line in (
        "follow  ray job logs --follow",
        "stop    ray job stop",
        "show    tsalign show first",
        "fetch   rsync",
    ):
        assert line in sent.stdout
    rows = {row["prompt_id"]: row["seen"] for row in rows_of(storage / "first" / "wait")}
    assert rows == {"files": "config.yaml held.py", "SENT": "travels", "KEPT": ""}
    [listed] = [each for each in cluster.jobs() if each["run"] == "first"]
    assert (listed["job"], listed["status"], listed["storage"]) == (job[1], "SUCCEEDED", str(storage))


def test_what_would_wait_for_ever_is_the_jobs_status(cluster: Cluster, storage: Path) -> None:
    refused = cluster.submit("large", "resources.mine.cpus=64", "--follow")
    assert refused.returncode == 2, refused.stdout
    assert "resources.mine, for wait: would wait for ever: an actor wants 64 CPU" in refused.stdout


def test_another_token_is_refused_by_both_doors(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "other").write_text(secrets.token_hex(32))
    refused = cluster.tsalign("jobs", token=tmp_path / "other")
    assert refused.returncode == 2
    assert "no token, or a wrong one. On the head, `ray get-auth-token`" in refused.stderr
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "other")}
    joining = cluster.tsalign("run", "held.yaml", "run=never", "--address", cluster.gcs, **variables)
    assert joining.returncode == 2
    assert f"RAY_ADDRESS={cluster.gcs}: no token, or a wrong one." in joining.stderr
    assert "Traceback" not in joining.stderr


@pytest.mark.slow
def test_a_stopped_run_resumes_and_has_one_driver(cluster: Cluster, storage: Path) -> None:
    first = cluster.submit("held")
    assert first.returncode == 0, first.stderr
    cluster.until((storage / "at-work").exists)
    again = cluster.submit("held")
    assert again.returncode == 2
    assert "run held is already running: job raysubmit_" in again.stderr
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(cluster.token)}
    beside = cluster.tsalign("run", "held.yaml", "run=held", "--address", cluster.gcs, **variables)
    assert beside.returncode == 2
    assert "run held is already running: process" in beside.stderr

    [job] = [each for each in cluster.jobs() if each["run"] == "held"]
    cluster.stop(job["job"])
    cluster.until(lambda: next(each for each in cluster.jobs() if each["run"] == "held")["status"] == "STOPPED")
    assert state(storage / "held") == "stopped"

    (storage / "go").touch()
    resumed = cluster.submit("held", "--follow")
    assert resumed.returncode == 0, resumed.stdout
    assert re.search(r"look +done before", resumed.stdout)
    assert state(storage / "held") == "done"


@pytest.mark.slow
def test_a_job_that_is_stopped_in_the_middle_makes_the_same_rows(
    cluster: Cluster, storage: Path, models: dict[str, Model]
) -> None:
    quick = {"batch_size": 8, "precision": "fp32", "zero_stage": 0, "learning_rate": 1e-3}
    config = {
        "recipe": "ts-align",
        "iterations": 1,
        "storage": str(storage),
        "policy": {"model": models["policy"].path},
        "student": {"model": models["student"].path},
        "teacher": {"model": models["student"].path, "cpus": 0},
        "data": {"prompts": "prompts.jsonl", "eval_fraction": 0.2, "shard_size": 4},
        "sampling": {"engine": "hf", "k": 3, "max_tokens": 8, "max_model_len": 128},
        "distill": quick,
        "tune": {"reference": "initial", **quick},
        "evaluation": {"judge": "tsalign.toy.oracle:grade", "prompts_per_set": 4},
        "loggers": [],
    }
    prompts = [json.dumps({"prompt": f"add {first} {second}"}) for first in range(6) for second in range(6)]
    (cluster.here / "prompts.jsonl").write_text("\n".join(prompts))
    (cluster.here / "config.yaml").write_text(yaml.safe_dump(config))
    assert cluster.tsalign("submit", "config.yaml", "run=cut").returncode == 0
    cluster.until(lambda: len(parts(storage / "cut" / "iterations" / "1" / "candidates")) > 1)
    [job] = [each for each in cluster.jobs() if each["run"] == "cut"]
    cluster.stop(job["job"])
    cluster.until(lambda: next(each for each in cluster.jobs() if each["run"] == "cut")["status"] == "STOPPED")
    resumed = cluster.tsalign("submit", "config.yaml", "run=cut", "--follow")
    assert resumed.returncode == 0, resumed.stdout
    Driver(cluster.here).run("whole")
    for stage in ("candidates", "preferences"):
        found = [row_hashes(storage / run / "iterations" / "1" / stage) for run in ("cut", "whole")]
        assert found[0] == found[1] != []
