"""The notebooks: in the form in which they are committed, and run from top to bottom on a fresh kernel."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest
from upath import UPath

from tsalign.session.drivers import Here

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
FOUND = sorted(NOTEBOOKS.glob("*.ipynb"))
PLOTS = {"01_quickstart": 2, "03_cluster_session": 1, "04_four_recipes": 4, "05_write_a_recipe": 1}  # at least
SECONDS = 900  # of the longest cell


def cleaned(notebook: dict[str, Any]) -> str:
    spec = importlib.util.spec_from_file_location("clean", NOTEBOOKS / "clean.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.cleaned(notebook))


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_a_notebook_is_committed_clean_and_explains_itself(path: Path) -> None:
    text = path.read_text()
    assert text == cleaned(json.loads(text)), "run `python notebooks/clean.py`"
    nbformat.validate(nbformat.reads(text, as_version=4))
    cells = json.loads(text)["cells"]
    assert "".join(cells[0]["source"]).startswith("# ")
    assert "TSALIGN_NOTEBOOK_SMALL" in text
    assert sum(cell["cell_type"] == "markdown" for cell in cells) >= len(cells) / 4


def test_cleaning_drops_what_running_leaves() -> None:
    ran = nbformat.read(FOUND[0], as_version=4)
    for number, cell in enumerate(ran.cells):
        cell.id = f"other-{number}"
        if cell.cell_type == "code":
            cell.execution_count, cell.metadata = number, {"collapsed": True}
            cell.outputs = [nbformat.v4.new_output("stream", text="done")]
    assert cleaned(json.loads(nbformat.writes(ran))) == FOUND[0].read_text()


def stop_runs_in(folder: Path) -> None:
    """What a notebook that failed left going on: its runs outlive its kernel."""
    for ledger in folder.glob("*/*/ledger.jsonl"):
        if driver := Here().find(UPath(ledger.parent)):
            driver.stop()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set NOTEBOOK_OUTPUTS to a folder to look at its plots afterwards."""
    monkeypatch.setenv("TSALIGN_NOTEBOOK_SMALL", "1")
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(tmp_path)}}
    try:
        nbclient.NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources=where).execute()
    finally:
        stop_runs_in(tmp_path)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    shown = [output["data"] for output in outputs if "data" in output]
    pictures = [base64.b64decode(data["image/png"]) for data in shown if "image/png" in data]
    assert len(pictures) >= PLOTS.get(path.stem, 0)
    assert any(data.get("text/html", "").startswith('<div class="tex2jax_ignore">') for data in shown)
    if folder := os.environ.get("NOTEBOOK_OUTPUTS"):
        nbformat.write(notebook, Path(folder) / path.name)
        for number, picture in enumerate(pictures):
            (Path(folder) / f"{path.stem}-{number}.png").write_bytes(picture)
