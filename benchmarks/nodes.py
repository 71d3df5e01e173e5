"""Nodes over time under Ray's real autoscaler, in a run of TS-Align on a head without CPUs.

    python benchmarks/nodes.py [--out docs/images/node_counts.png]

The nodes are fake, in that all are processes of this machine. It draws how many of each type there are, with the stages
below; the last line is JSON with the seconds from the end of the run to the last node's leave, which should be at most
the idle timeout and 30.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import yaml
from matplotlib.axes import Axes

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from autoscaled import autoscaled
from driver import Driver
from scaled_run import CONFIG, IDLE_SECONDS, KINDS

COLOURS = {"sampler": "#4c72b0", "trainer": "#dd8452", "teacher": "#55a868"}
SHOWN_SECONDS = 2.0  # stages that are shorter have no room for their names


def stages(folder: Path, began: float) -> list[tuple[str, float, float]]:
    """Name, begin and end of each stage, in seconds."""
    entries = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    ends = [(entry["stage"], entry["time"] - began, entry["seconds"]) for entry in entries if entry.get("seconds")]
    return [(name.removeprefix("1/"), end - took, end) for name, end, took in ends if took > SHOWN_SECONDS]


def draw(seen: Sequence[tuple[float, Mapping[str, int]]], ran: Sequence[tuple[str, float, float]], out: Path) -> None:
    """Steps of the counts above, a bar a stage below."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(9, 6), sharex=True, height_ratios=[2, 3], layout="constrained")
    above.set_ylabel("nodes")
    times = [when for when, _ in seen]
    for kind, colour in COLOURS.items():
        above.step(times, [nodes.get(kind, 0) for _, nodes in seen], where="post", color=colour, label=kind, lw=2)
    above.set_yticks(range(4))
    above.legend(frameon=False, ncols=3, loc="upper right")
    bars(below, ran)
    end = max(when for _, _, when in ran)
    for axes in (above, below):
        axes.axvline(end, color="0.5", ls=":", lw=1)
        axes.spines[["top", "right"]].set_visible(False)
    below.set_xlabel("seconds; dotted: the end of the run")
    figure.savefig(out, dpi=120)


def bars(axes: Axes, ran: Sequence[tuple[str, float, float]]) -> None:
    """Stages in the order in which they began."""
    for row, (name, begin, end) in enumerate(sorted(ran, key=lambda one: one[1])):
        axes.barh(row, end - begin, left=begin, color="#8da0cb", height=0.7)
        axes.text(end + 1, row, name, va="center", fontsize=8)
    axes.set_yticks([])
    axes.invert_yaxis()


def main() -> None:
    """Run, draw and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/images/node_counts.png"))
    out = parser.parse_args().out
    folder = Path(tempfile.mkdtemp(prefix="tsalign-"))
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    with autoscaled(folder, KINDS, IDLE_SECONDS) as cluster:
        began = time.time()
        offset = began - cluster.began
        Driver(folder, environment=cluster.environment()).run("scaled")
        left = cluster.wait_until(lambda: not cluster.nodes(), "nodes stay")
        seen: list[tuple[float, Counter[str]]] = [(when - offset, nodes) for when, nodes in cluster.seen]
    draw([*seen, (seen[-1][0] + 3, Counter[str]())], stages(folder / "runs" / "scaled", began), out)
    told: dict[str, Any] = {"name": "nodes", "idle_timeout": IDLE_SECONDS, "gone_after": round(left, 1)}
    print(json.dumps({**told, "most": {kind: max(nodes[kind] for _, nodes in seen) for kind in KINDS}}))


if __name__ == "__main__":
    main()
