"""The Grafana dashboard asks for what tsalign exports: every metric, no other, by the tags that it has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tsalign.runs.meters import COUNTERS, EXPORTED, GAUGES

DASHBOARD = json.loads((Path(__file__).parents[2] / "cluster" / "grafana" / "tsalign.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
OF_RAY = {"autoscaler_active_nodes", "autoscaler_pending_nodes"}
OF_SERVE = ("application", "deployment", "replica")


def test_every_metric_is_shown_and_every_shown_one_is_there() -> None:
    asked = set(re.findall(r"\b(?:ray|autoscaler)_\w+", " ".join(QUERIES)))
    assert asked == set(EXPORTED) | OF_RAY


def tags(query: str) -> tuple[str, ...]:
    """Those of the metric in a query."""
    name = re.search(r"ray_(tsalign_\w+?)(_total)?\b", query)
    found: dict[str, Any] = {**COUNTERS, **GAUGES}
    return ("NodeType",) if name is None else found.get(name[1], ("", OF_SERVE))[1]


@pytest.mark.parametrize("query", QUERIES)
def test_queries_use_tags_that_there_are(query: str) -> None:
    used = set(re.findall(r"(\w+)=~", query))
    for group in re.findall(r"by \(([^)]*)\)", query):
        used |= set(group.split(", "))
    assert used
    assert used <= set(tags(query))
    assert query.count("(") == query.count(")")
    assert set(re.findall(r"\$(\w+)", query)) <= {*VARIABLES, "__rate_interval", "__range"}


def test_panels_do_not_overlap() -> None:
    taken = set[tuple[int, int]]()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + right, place["y"] + down) for right in range(place["w"]) for down in range(place["h"])}
        assert not cells & taken
        assert max(cell[0] for cell in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
