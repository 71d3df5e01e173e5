"""Actors, tasks, and waits for room, on the nodes that labels name."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

# In a process of its own: one process knows one Ray.
SCRIPT = """
import os
import ray
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
cluster.add_node(num_cpus=2, labels={"pool": "other"})
wanted = cluster.add_node(num_cpus=2, labels={"pool": "sampler"}).node_id
os.environ["RAY_ADDRESS"] = cluster.address
ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")

from tsalign.common.errors import TsalignError
from tsalign.config import Placement
from tsalign.runs.nodes import actor_options, size_of, wait_for_room

place = Placement(replicas=2, node={"pool": "sampler"})
where = ray.remote(**actor_options(size_of(place)))(lambda: ray.get_runtime_context().get_node_id())
print({node == wanted for node in ray.get([where.remote() for _ in range(4)])})


class Where:
    def __call__(self, batch):
        return {"node": [ray.get_runtime_context().get_node_id()]}


rows = ray.data.range(6, override_num_blocks=6).map_batches(
    Where, batch_size=1, compute=ray.data.ActorPoolStrategy(size=2), **actor_options(size_of(place))
)
print({row["node"] == wanted for row in rows.take_all()})
wait_for_room("1/candidates", 2, size_of(place), 5)
try:
    wait_for_room("1/candidates", 3, size_of(place), 1)
except TsalignError as error:
    print(error)
ray.shutdown()
cluster.shutdown()
"""


def test_labels_choose_nodes() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300, check=False)
    lines = done.stdout.splitlines()
    assert lines[:2] == ["{True}", "{True}"], done.stderr
    assert lines[2] == (
        "1/candidates: needs 3 x 1 CPU on pool=sampler, but the nodes have room for 2 of them; "
        "add nodes or lower `resources` in the config (tsalign plan shows who needs what)."
    )
