"""What `tsalign show` prints, in a notebook."""

from __future__ import annotations

from io import StringIO

from rich.console import Console
from upath import UPath

from tsalign.report.table import run_table

FRAME = '<pre style="white-space:pre;color:inherit;background:none;line-height:1.3">{code}</pre>'


class RunReport:
    """A run's table and lines, as text, and in the same fixed columns as HTML."""

    def __init__(self, folder: UPath) -> None:
        console = Console(record=True, file=StringIO(), width=140, force_jupyter=False)
        console.print(run_table(folder), highlight=False)
        self._html = console.export_html(code_format=FRAME, inline_styles=True, clear=False)
        self._text = "\n".join(line.rstrip() for line in console.export_text().splitlines())

    def _repr_html_(self) -> str:
        return self._html

    def __repr__(self) -> str:
        return self._text
