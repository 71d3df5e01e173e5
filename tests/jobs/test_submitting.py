"""What is told before a run is sent, over a job server of a few lines; and what is sent. Nothing here starts Ray."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from typer.testing import CliRunner, Result

from tsalign.cli import app
from tsalign.jobs.packing import Luggage
from tsalign.jobs.submitting import Submitted, entrypoint, installed, where


@dataclass
class Server:
    """Answers as Ray's job server does, and keeps what it is sent."""

    address: str = ""
    version: str = ray.__version__
    status: int = 200
    listed: list[dict[str, Any]] = field(default_factory=list)
    submitted: list[dict[str, Any]] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    told = Server()

    class Handler(BaseHTTPRequestHandler):
        def answer(self, content: Any) -> None:
            self.send_response(told.status if self.path != "/api/version" else 200)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def do_GET(self) -> None:
            if self.path == "/api/version":
                self.answer({"version": "4", "ray_version": told.version, "ray_commit": "", "session_name": ""})
            elif self.path.startswith("/api/packages"):
                self.send_error(404)
            else:
                self.answer(told.listed)

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            told.packages.append(self.path)
            self.answer({})

        def do_POST(self) -> None:
            told.submitted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.answer({"job_id": "raysubmit_1", "submission_id": "raysubmit_1"})

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        told.address = f"http://127.0.0.1:{listening.server_port}"
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield told
        listening.shutdown()


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "hello"}\n')
    content = {
        "recipe": "ts-align",
        "run": "demo",
        "storage": "s3://bucket/runs",
        "policy": {"model": "org/policy"},
        "student": {"model": "org/student"},
        "teacher": {"model": "toy:teacher"},
        "data": {"prompts": "prompts.jsonl", "eval_fraction": 0.1},
        "evaluation": {"judge": "tsalign.toy.oracle:grade"},
        "tune": {"reference": "initial"},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "config.yaml"


def submit(server: Server, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["submit", "config.yaml", *arguments, "--address", server.address])


def job(status: str, run: str = "demo", storage: str = "s3://bucket/runs") -> dict[str, Any]:
    metadata = {"tsalign.run": run, "tsalign.storage": storage}
    known = {"submission_id": f"raysubmit_{run}", "entrypoint": "", "status": status, "type": "SUBMISSION"}
    return {**known, "metadata": metadata, "start_time": 1_700_000_000_000}


def test_what_is_sent(server: Server, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "a secret")
    sent = submit(server, "tune.beta=0.2", "--env", "HF_TOKEN", "--node", "driver")
    assert sent.exit_code == 0, sent.output
    [request] = server.submitted
    assert request["entrypoint"] == "python -m tsalign.jobs.unpack && exec python -m tsalign.cli run config.yaml"
    assert request["metadata"] == {"tsalign.run": "demo", "tsalign.storage": "s3://bucket/runs"}
    assert request["entrypoint_resources"] == {"driver": 0.0001}
    assert set(request["runtime_env"]) == {"working_dir", "env_vars"}
    assert request["runtime_env"]["env_vars"] == {"HF_TOKEN": "a secret"}
    assert len(server.packages) == 1
    assert "a secret" not in sent.output
    assert [line.split()[0] for line in sent.stdout.splitlines()] == ["job", "run", "follow", "stop", "show", "fetch"]
    assert "aws s3 cp --recursive s3://bucket/runs/demo demo" in sent.stdout


def test_the_package_travels_when_asked(server: Server, config: Path) -> None:
    assert submit(server, "data.prompts=toy:train", "--package").exit_code == 0
    [request] = server.submitted
    assert request["entrypoint"] == "exec python -m tsalign.cli run config.yaml"
    assert len(request["runtime_env"]["py_modules"]) == 2
    package, information = map(Path, installed())
    assert (package / "cli" / "__main__.py").exists()
    assert "tsalign.cli:app" in (information / "entry_points.txt").read_text()


@pytest.mark.parametrize(
    ("listed", "refused"),
    [
        ([job("RUNNING")], True),
        ([job("PENDING")], True),
        ([job("STOPPED"), job("FAILED"), job("SUCCEEDED")], False),
        ([job("RUNNING", run="other"), job("RUNNING", storage="s3://bucket/others")], False),
    ],
)
def test_a_live_run_is_not_submitted_again(
    listed: list[dict[str, Any]], refused: bool, server: Server, config: Path
) -> None:
    server.listed = listed
    result = submit(server)
    assert (result.exit_code, len(server.submitted)) == ((2, 0) if refused else (0, 1)), result.output
    assert ("run demo is already running: job raysubmit_demo" in result.stderr) == refused


@pytest.mark.parametrize(
    ("server_has", "arguments", "told"),
    [
        ({"version": "2.9.0"}, [], "the cluster has Ray 2.9.0, here it is"),
        ({"status": 401}, [], "no token, or a wrong one. On the head, `ray get-auth-token`"),
        ({"status": 403}, [], "no token, or a wrong one."),
        ({"status": 500}, [], "what answers there is no job server of Ray"),
        ({}, ["--env", "NOT_SET_ANYWHERE"], "--env NOT_SET_ANYWHERE: is not set here"),
        ({}, ["--token-file", "nowhere"], "--token-file: nowhere: no such file"),
        ({}, ["storage=runs"], "add storage=s3://BUCKET/runs"),
        ({}, ["data.prompts=no.jsonl"], "data.prompts: no.jsonl: no such file"),
        ({}, ["tune.betta=1"], "did you mean tune.beta?"),
        ({"address": "127.0.0.1:1"}, [], "expected the job server's, as http://HEAD:8265"),
        ({"address": "http://127.0.0.1:1"}, [], "no job server answers there"),
    ],
)
def test_what_is_told_before_anything_is_sent(
    server_has: dict[str, Any], arguments: list[str], told: str, server: Server, config: Path
) -> None:
    for name, value in server_has.items():
        setattr(server, name, value)
    refused = submit(server, *arguments)
    assert (refused.exit_code, refused.stdout, server.submitted) == (2, "", []), refused.output
    assert told in refused.stderr
    assert "Traceback" not in refused.output


def test_jobs_are_listed_with_their_runs(server: Server) -> None:
    server.listed = [
        job("RUNNING"),
        {**job("FAILED", run="earlier"), "start_time": 1},
        {**job("RUNNING"), "metadata": {}},
    ]
    shown = CliRunner().invoke(app, ["jobs", "--address", server.address])
    assert [line.split()[:3] for line in shown.stdout.splitlines()[1:]] == [
        ["raysubmit_earlier", "earlier", "failed"],
        ["raysubmit_demo", "demo", "running"],
    ]
    listed = json.loads(CliRunner().invoke(app, ["jobs", "--json", "--address", server.address]).stdout)
    assert [each["run"] for each in listed] == ["earlier", "demo"]
    server.listed = []
    assert "no jobs of tsalign" in CliRunner().invoke(app, ["jobs", "--address", server.address]).stderr


@pytest.mark.parametrize(
    ("node", "asked"),
    [
        (None, {}),
        ("driver", {"entrypoint_resources": {"driver": 0.0001}}),
        ("role=driver", {"entrypoint_label_selector": {"role": "driver"}}),
    ],
)
def test_where_the_driver_runs(node: str | None, asked: dict[str, Any]) -> None:
    assert where(node) == asked


@pytest.mark.parametrize(
    ("storage", "line"),
    [
        ("s3://b/runs/", "aws s3 cp --recursive s3://b/runs/r r"),
        ("gs://b/runs", "gcloud storage cp -r gs://b/runs/r r"),
        ("/shared/my runs", "rsync -a head:'/shared/my runs/r'/ r"),
    ],
)
def test_how_a_run_is_fetched(storage: str, line: str) -> None:
    assert Submitted("j", "r", storage, "http://head:8265").lines()["fetch"] == line


def test_a_job_without_files_unpacks_nothing() -> None:
    assert entrypoint(Luggage({}, {"grading.py": Path("grading.py")})).startswith("exec python")
