"""Seconds to the first sampled tokens: `tsalign submit` on a cluster that is up, against `tsalign run` on this machine.

    python benchmarks/submit.py [--rounds 3]

It starts a cluster of its own, on one node, and ends it. Both do the same config up to the first committed shard of
candidates; the last line is JSON with the medians and their ratio, which should be at most 1.5.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from urllib.request import urlopen

BIN = Path(sys.executable).parent
GCS, DASHBOARD, AGENT = 27379, 27265, 27365
ADDRESS = f"http://127.0.0.1:{DASHBOARD}"
CONFIG = """\
recipe: ts-align
iterations: 1
loggers: []
policy: {model: "toy:policy"}
student: {model: "toy:student"}
teacher: {model: "toy:teacher", cpus: 0}
data: {prompts: prompts.jsonl, shard_size: 16, eval_fraction: 0.1}
sampling: {engine: hf, k: 4, max_tokens: 16, max_model_len: 128}
tune: {reference: previous}
evaluation: {judge: "tsalign.toy.oracle:grade"}
"""


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """A head with this machine's CPUs, in a process group of its own."""
    (folder / "token").write_text(secrets.token_hex(32))
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token")}
    os.environ["PATH"] = f"{BIN}:{os.environ['PATH']}"  # the job's `python`
    ports = [f"--port={GCS}", f"--dashboard-port={DASHBOARD}", f"--dashboard-agent-listen-port={AGENT}"]
    command = [BIN / "ray", "start", "--head", "--block", "--disable-usage-stats", *ports]
    rays = tempfile.mkdtemp(prefix="tsb", dir="/tmp")  # a socket's path has few characters
    with (folder / "log").open("w") as log:
        head = subprocess.Popen(
            [*command, f"--temp-dir={rays}"], stdout=log, stderr=log, cwd=folder, start_new_session=True
        )
    try:
        while not answers():
            assert head.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        yield
    finally:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait()
        shutil.rmtree(rays, ignore_errors=True)


def answers() -> bool:
    try:
        urlopen(f"{ADDRESS}/api/version", timeout=1).close()
    except OSError as error:
        return getattr(error, "code", 0) in (401, 403)
    return True


def sampled(folder: Path, run: str, *command: str) -> float:
    """Seconds from starting a command to the first shard of candidates; the run is then ended."""
    start = time.monotonic()
    with (folder / f"{run}.log").open("w") as log:
        given = ["config.yaml", f"run={run}", f"storage={folder}/runs"]
        process = subprocess.Popen(
            [BIN / "tsalign", *command[:1], *given, *command[1:]],
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        while not list((folder / "runs" / run / "iterations" / "1" / "candidates").glob("part-*.parquet")):
            assert process.poll() in (None, 0), (folder / f"{run}.log").read_text()
            time.sleep(0.02)
        return time.monotonic() - start
    finally:
        if command[0] == "submit":
            job = (folder / f"{run}.log").read_text().split()[1]
            subprocess.run([BIN / "ray", "job", "stop", "--address", ADDRESS, job], check=True, capture_output=True)
        elif process.poll() is None:
            process.terminate()
        process.wait()


def main() -> None:
    """Measure both in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prompts = [json.dumps({"prompt": f"add {first} {second}"}) for first in range(10) for second in range(10)]
        (folder / "prompts.jsonl").write_text("\n".join(prompts))
        (folder / "config.yaml").write_text(CONFIG)
        local = [sampled(folder, f"local-{number}", "run") for number in range(rounds)]
        with cluster(folder):
            jobs = [sampled(folder, f"job-{number}", "submit", "--address", ADDRESS) for number in range(rounds)]
    print(f"tsalign run     {', '.join(f'{seconds:.1f} s' for seconds in local)}")
    print(f"tsalign submit  {', '.join(f'{seconds:.1f} s' for seconds in jobs)}")
    figures = {"submit_seconds": round(median(jobs), 2), "run_seconds": round(median(local), 2)}
    print(json.dumps({"name": "submit", "ratio": round(median(jobs) / median(local), 3), **figures}))


if __name__ == "__main__":
    main()
