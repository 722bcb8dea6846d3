"""Charts as SVG text, for documents that stand on their own."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from app.shared.vega import VEGA_LITE

STYLE = Path(__file__).with_name("style.css")
WIDTH = 980
LINES_WIDTH = 640  # of a chart that fills its container on a page; small enough for a narrow screen


@cache
def light_colours() -> dict[str, str]:
    """The custom properties of the stylesheet's light theme."""
    root = STYLE.read_text(encoding="utf-8").partition(":root {")[2].partition("}")[0]
    return dict(re.findall(r"--([\w-]+):\s*(#[0-9a-fA-F]+)", root))


def svg(chart: dict[str, Any]) -> str:
    """A chart of `app.shared.charts` or `app.results.charts` as SVG in the light theme."""
    import vl_convert  # takes its time: only a report needs it here

    spec = _coloured({**chart["spec"], "datasets": chart["data"]})
    if "facet" in spec:
        columns = spec["columns"]
        spec["spec"]["width"] = (WIDTH - spec["usermeta"]["labelWidth"] - 40 * columns) // columns
    elif spec.get("width") == "container":
        spec |= {"width": LINES_WIDTH, "autosize": {"type": "fit-x", "contains": "padding"}}
    return vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE)


def _coloured(part: Any) -> Any:
    if isinstance(part, str) and part.startswith("$"):
        return light_colours().get(part[1:], part)
    if isinstance(part, dict):
        return {k: v if k == "datasets" else _coloured(v) for k, v in part.items()}
    return [_coloured(item) for item in part] if isinstance(part, list) else part
