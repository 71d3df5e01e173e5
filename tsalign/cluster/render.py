"""Manifests of a cluster from its parameters: Ray's launcher files and KubeRay's."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tsalign.cluster.params import ClusterParams

TEMPLATES = Path(__file__).parent / "templates"
SHARE = 1  # of a pool's custom resource, on each node: an actor takes next to nothing of it
# Written in one line in the templates.
POD_SECURITY = "{runAsNonRoot: true, runAsUser: 1000, fsGroup: 1000, seccompProfile: {type: RuntimeDefault}}"
CONTAINER_SECURITY = "{allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}"


def render(params: ClusterParams) -> dict[str, str]:
    """File name -> text, for every template that is not a part of others."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    values = {
        **dict(params),
        "share": SHARE,
        "serves": False,
        "ray_version": version("ray"),
        "pod_security": POD_SECURITY,
        "container_security": CONTAINER_SECURITY,
    }
    whole = sorted(path for path in TEMPLATES.rglob("*.jinja") if not path.name.startswith("_"))
    names = [path.relative_to(TEMPLATES).with_suffix("").as_posix() for path in whole]
    return {name: environment.get_template(f"{name}.jinja").render(values) for name in names}


def write(params: ClusterParams, out: Path) -> list[Path]:
    """Write every manifest under `out`; returns the paths."""
    written = []
    for name, text in render(params).items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        written.append(path)
    return written
