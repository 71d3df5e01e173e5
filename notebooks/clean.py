"""Put notebooks into the form in which they are committed: `python notebooks/clean.py`.

No outputs, no counts, no metadata of editors, cells numbered: the same cells make the same file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def cleaned(notebook: dict[str, Any]) -> str:
    """The text of a notebook's file."""
    cells = [_cell(cell, number) for number, cell in enumerate(notebook["cells"], 1)]
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    whole = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _cell(cell: dict[str, Any], number: int) -> dict[str, Any]:
    kept = {"cell_type": cell["cell_type"], "id": f"cell-{number:02}", "metadata": {}, "source": cell["source"]}
    return {**kept, "execution_count": None, "outputs": []} if cell["cell_type"] == "code" else kept


if __name__ == "__main__":
    for path in sorted(Path(__file__).parent.glob("*.ipynb")):
        path.write_text(cleaned(json.loads(path.read_text())))
