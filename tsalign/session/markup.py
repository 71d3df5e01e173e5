"""HTML for notebooks, in which anything that is not our own markup is escaped; colours suit light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

GREY, SOFT = "rgba(128,128,128,.35)", "rgba(128,128,128,.12)"
COLOURS = {"running": "#2f8fde", "done": "#2a9d58", "failed": "#d1443a", "stopped": "#c98a27", "damaged": "#d1443a"}


class Html(str):
    """Markup that we made; any other text that goes into markup is escaped."""

    def _repr_html_(self) -> str:
        return str(self)


def tag(name: str, *children: object, style: str = "") -> Html:
    """An element with what it holds."""
    held = "".join(child if isinstance(child, Html) else escape(str(child)) for child in children)
    styled = f' style="{escape(style)}"' if style else ""
    return Html(f"<{name}{styled}>{held}</{name}>")


def together(*parts: object) -> Html:
    """Parts below each other; formulas in what models wrote stay text."""
    return Html(tag("div", *parts).replace("<div>", '<div class="tex2jax_ignore">', 1))


def table(headers: Sequence[object], rows: Iterable[Sequence[object]], wide: bool = False) -> Html:
    """Rows of cells; `wide` cells hold long texts, whose lines and spaces are kept."""
    cell = f"border:0;border-bottom:1px solid {GREY};padding:.3em .7em;text-align:left;vertical-align:top;"
    kept = "white-space:pre-wrap;overflow-wrap:anywhere;" if wide else "white-space:nowrap;"
    head = tag("tr", *(tag("th", header, style=cell + "opacity:.65;font-weight:normal") for header in headers))
    body = [tag("tr", *(tag("td", one, style=cell + kept) for one in row), style="background:none") for row in rows]
    return tag("table", tag("thead", head), tag("tbody", *body), style="border-collapse:collapse;color:inherit")


def badge(state: str) -> Html:
    """The status of a run."""
    return tag("b", state, style=f"color:{COLOURS[state]}")


def bar(share: float) -> Html:
    """How much is done."""
    filled = f"height:100%;border-radius:3px;background:#2f8fde;width:{100 * min(max(share, 0.0), 1.0):.1f}%"
    whole = f"display:inline-block;vertical-align:middle;width:9em;height:.6em;border-radius:3px;background:{SOFT}"
    return tag("span", tag("span", style=f"display:block;{filled}"), style=whole)
