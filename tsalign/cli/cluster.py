"""`cluster render`: the manifests of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tsalign.cli.terminal import app

cluster = typer.Typer(no_args_is_help=True, help="Manifests for clusters on AWS, Google Cloud, Kubernetes or your own.")
app.add_typer(cluster, name="cluster")


@cluster.command("render")
def render(
    params: Annotated[Path, typer.Argument(help="YAML file of parameters, as cluster/params.yaml")],
    target: Annotated[Path, typer.Option("--out", help="folder for the manifests")] = Path("cluster"),
) -> None:
    """Write launcher and KubeRay files made of one parameter file."""
    from tsalign.cluster.params import read_params
    from tsalign.cluster.render import write

    for path in write(read_params(params), target):
        typer.echo(path)
