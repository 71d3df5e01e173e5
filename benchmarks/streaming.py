"""Wall seconds of sampling, the student's ranking and the teacher's as one pipeline, against one after the other.

    python benchmarks/streaming.py [--rounds 3]

It starts a cluster of its own with two node types, one that samples and one that scores, and ends it. The stages are
balanced fakes that sleep: 2 s a shard for sampling, 1 s each for the two that score. The last line is JSON with the
medians and their ratio, which should be at most 0.7.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

from upath import UPath

from tsalign.config import Placement, ResourceConfig
from tsalign.data.passes import Pass, run_passes
from tsalign.data.shards import Row, Shard, write_rows
from tsalign.runs.artifacts import Dataset
from tsalign.runs.stage import Stage

SHARDS = 12
STAGES = {"candidates": ("sampler", 2.0), "scores": ("scorer", 1.0), "preferences": ("scorer", 1.0)}


class FakeWorker:
    """Takes its time for a shard, as a model would."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, rows: list[Row], shard: str) -> Shard:
        time.sleep(self.seconds)
        return Shard(rows)


def passes(folder: Path) -> list[Pass]:
    """The three stages, each of which reads what the one before makes."""
    source = Dataset(str(folder / "prompts"), "prompts")
    write_rows(UPath(source.path), ({"prompt_id": f"p{number}"} for number in range(SHARDS)), shard_size=1)
    made = list[Pass]()
    for name, (node, seconds) in STAGES.items():
        place, out = Placement(node=node), UPath(folder) / name
        stage = Stage("bench", name, 1, name, 0, out, out, out, ResourceConfig(), log=lambda counts: None)
        before = made[-1].output if made else source
        made.append(Pass(stage, before, FakeWorker, {"seconds": seconds}, place))
    return made


def measure(streaming: bool) -> float:
    """Seconds from the first actor's start to the last shard."""
    folder = Path(tempfile.mkdtemp(prefix="tsalign-"))
    todo = passes(folder)
    began = time.monotonic()
    for part in [todo] if streaming else [[one] for one in todo]:
        run_passes(part)
    seconds = time.monotonic() - began
    shutil.rmtree(folder)
    return seconds


def main() -> None:
    """Alternate both ways, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.add_node(num_cpus=1, resources={"sampler": 1})
    cluster.add_node(num_cpus=2, resources={"scorer": 1})
    os.environ["RAY_ADDRESS"] = cluster.address
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    measure(streaming=True)  # what starts only once is no part of either
    found: dict[str, list[float]] = {"phased": [], "streaming": []}
    for number in range(rounds):
        for name, seconds in found.items():
            seconds.append(measure(name == "streaming"))
            print(f"round {number + 1}: {name} {seconds[-1]:.1f} s", flush=True)
    ray.shutdown()
    cluster.shutdown()
    medians = {name: round(median(seconds), 1) for name, seconds in found.items()}
    print(json.dumps({"name": "streaming", "ratio": round(medians["streaming"] / medians["phased"], 2), **medians}))


if __name__ == "__main__":
    main()
