"""Ray's real autoscaler (v2) on this machine: a head without CPUs, and nodes that come and go as they are asked for.

The nodes are fake, in that they are all processes of this machine; all else is what runs in a cloud.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from ray._raylet import GcsClient

from tsalign.teacher import ray_serve

HEAD = "f" * 51 + "00000"
HEADS_TYPE = "ray.head.default"  # the only name that the fake nodes know
LIFETIME = 180  # seconds that a wait may take


@dataclass(frozen=True)
class Kind:
    """A node type: the CPUs of a node and how many nodes there may be. Its nodes have a custom resource of its name."""

    cpus: int = 1
    most: int = 1


@dataclass
class Autoscaled:
    """A running cluster.

    Attributes:
        seen: when the nodes changed, in seconds since it began, and how many of each type there were from then on.
    """

    address: str
    process: subprocess.Popen[bytes]
    seen: list[tuple[float, Counter[str]]] = field(default_factory=list)
    began: float = field(default_factory=time.time)

    def environment(self) -> dict[str, str]:
        """Of drivers that join it."""
        return {"RAY_ADDRESS": self.address, "RAY_AUTH_MODE": "disabled"}

    def nodes(self) -> Counter[str]:
        """How many nodes of each type there are, by the cluster's own account; the head is none."""
        client = GcsClient(address=self.address)
        alive = [info for info in client.get_all_node_info(timeout=30).values() if info.state == 0]
        kinds = [set(info.resources_total) - {"CPU", "GPU", "memory", "object_store_memory"} for info in alive]
        return Counter(name for names in kinds for name in names if not name.startswith("node:"))

    def wait_until(self, ready: Callable[[], bool], what: str) -> float:
        """The seconds until `ready()`."""
        began = time.monotonic()
        while not ready():
            assert self.process.poll() is None, "the cluster has ended"
            assert time.monotonic() - began < LIFETIME, f"{what}: {self.nodes()}"
            time.sleep(0.1)
        return time.monotonic() - began

    def lose(self, kind: str) -> None:
        """Kill a node of a type, as when a spot instance is taken away."""
        mine = psutil.Process(self.process.pid).children(recursive=True)
        raylets = [one for one in mine if one.name() == "raylet" and f"{kind},1" in " ".join(one.cmdline())]
        raylets[0].kill()

    def watch(self, over: threading.Event) -> None:
        """Note the nodes whenever they change."""
        while not over.wait(0.25):
            now = self.nodes()
            if not self.seen or self.seen[-1][1] != now:
                self.seen.append((time.time() - self.began, now))


@contextmanager
def autoscaled(folder: Path, kinds: Mapping[str, Kind], idle_seconds: float = 6) -> Iterator[Autoscaled]:
    """A cluster with these node types, for the length of the block; what it started ends with it."""
    from ray._private.services import get_node_ip_address

    port, ip = _free_port(), get_node_ip_address()
    config = folder / "cluster.yaml"
    config.write_text(yaml.safe_dump(_config(f"{ip}:{port}", kinds, idle_seconds)))
    temporary = Path(f"/tmp/ray-{port}")  # sockets have short names
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--port", str(port), "--num-cpus", "0"]
    command += ["--autoscaling-config", str(config), "--temp-dir", str(temporary), "--include-dashboard", "false"]
    command += ["--dashboard-agent-listen-port", str(_free_port()), "--disable-usage-stats", "--block"]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "RAY_AUTH_MODE": "disabled",
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
    }
    with (folder / "cluster.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    cluster, over = Autoscaled(f"{ip}:{port}", process), threading.Event()
    try:
        cluster.wait_until(lambda: _answers(ip, port), "the head")
        watching = threading.Thread(target=cluster.watch, args=(over,), daemon=True)
        watching.start()
        yield cluster
        over.set()
        watching.join()
    finally:
        over.set()
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        for one in family:
            one.kill()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(ip: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((ip, port)) == 0


def _free_port() -> int:
    """One that no other process is given until Ray listens."""
    return ray_serve._port("", 0)


def _config(address: str, kinds: Mapping[str, Kind], idle_seconds: float) -> dict[str, Any]:
    types = {
        kind: {
            "resources": {"CPU": size.cpus, kind: 1, "object_store_memory": 200_000_000},
            "node_config": {},
            "min_workers": 0,
            "max_workers": size.most,
        }
        for kind, size in kinds.items()
    }
    lists = ["initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray"]
    return {
        "cluster_name": "fake",
        "max_workers": sum(size.most for size in kinds.values()),
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": idle_seconds / 60,
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "disable_launch_config_check": True,
            "disable_node_updaters": True,
            "use_internal_ips": True,
            "gcs_address": address,
            "launch_multiple": True,
            "head_node_id": HEAD,
        },
        "available_node_types": {HEADS_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}, **types},
        "head_node_type": HEADS_TYPE,
        "auth": {"ssh_user": "root"},
        "docker": {},
        **{f"{name}_commands": [] for name in lists},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
    }
