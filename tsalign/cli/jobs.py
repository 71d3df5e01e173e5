"""`submit` and `jobs`: runs as jobs of a Ray cluster."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from tsalign.cli.options import Config, Json, Overrides
from tsalign.cli.terminal import app, errors, out

Server = Annotated[
    str, typer.Option("--address", metavar="URL", envvar="RAY_API_SERVER_ADDRESS", help="job server: http://HEAD:8265")
]
TokenFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="the cluster's token; default: RAY_AUTH_TOKEN, as Ray has it"),
]


@app.command()
def submit(
    config: Config,
    address: Server,
    overrides: Overrides = None,
    follow: Annotated[bool, typer.Option("--follow", help="show what the job says; exit with its status")] = False,
    token_file: TokenFile = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", metavar="NAME", help="variable that the job gets; can be repeated")
    ] = None,
    package: Annotated[bool, typer.Option("--package", help="send this tsalign, for nodes that lack it")] = False,
    node: Annotated[
        str | None,
        typer.Option(metavar="NODE", help="driver's node: a custom resource, or a label KEY=VALUE; default: the head"),
    ] = None,
) -> None:
    """Send a run to a cluster as a job; if a run of that name is in its storage, the job resumes it."""
    from tsalign import api
    from tsalign.config import parse_assignments
    from tsalign.jobs import server, submitting

    server.use_token(token_file)
    loaded = api.load(config, parse_assignments(overrides or []))
    client = server.connect(address)
    sent = submitting.submit(client, address, loaded, api.name_of(loaded), env or [], package, node)
    for name, line in {"job": sent.job, "run": f"{sent.run} in {sent.storage}", **sent.lines()}.items():
        typer.echo(f"{name:<8}{line}")
    if follow:
        from tsalign.jobs.following import follow as followed

        typer.echo("")
        try:
            raise typer.Exit(followed(client, sent.job))
        except KeyboardInterrupt:
            errors.print("the job goes on; `stop` above stops it", style="yellow", emoji=False, soft_wrap=True)
            raise typer.Exit(130) from None


@app.command()
def jobs(address: Server, token_file: TokenFile = None, as_json: Json = False) -> None:
    """List a cluster's jobs with their runs, newest last."""
    from tsalign.jobs import server

    server.use_token(token_file)
    found = server.jobs(server.connect(address))
    if as_json:
        typer.echo(json.dumps([asdict(job) for job in found]))
    elif found:
        table = Table("job", "run", "status", "started", "storage", box=None, pad_edge=False)
        for job in found:
            started = datetime.fromtimestamp(job.started / 1000).strftime("%Y-%m-%d %H:%M")
            table.add_row(job.job, job.run, job.status.lower(), started, job.storage)
        out.print(table, highlight=False)
    else:
        errors.print(f"no jobs of tsalign at {address}", markup=False, emoji=False, highlight=False)
