"""Vega-Lite charts as a Gradio component: theme colours, drawing in place when only the data change, and clicks."""

from __future__ import annotations

import os
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gradio as gr

from app.shared.frame import html

VEGA_LITE = "6.4"
PREPARE_AFTER_SECONDS = 4.0


def vega_chart(value: dict[str, Any] | None = None, **settings: Any) -> gr.HTML:
    """A component that draws `{"spec": …, "data": {name: rows}, "label": …}` (see charts.py), or nothing for None.

    A click on a mark whose row has a field `pick` raises the event `pick` with that value. (A function, since Gradio
    writes a type stub beside the source of every subclass of its components.)
    """
    return html(
        value,
        html_template='<div class="lab"><div class="chart"></div></div>',
        js_on_load="roteLab.chart(element, props, trigger, watch, 'pick');",
        min_width=300,
        **settings,
    )


class Bundle:
    """Vega, Vega-Lite and Vega-Embed as one script that leaves only three names in the page.

    Bundling takes seconds, so the result is kept in `home/cache` and made ahead of the first chart.
    """

    def __init__(self, home: Path) -> None:
        self.path = home / "cache" / f"vega-{version('vl-convert-python')}-{VEGA_LITE}.js"
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Make the script in the background, a moment later: the server's start comes first."""
        timer = threading.Timer(PREPARE_AFTER_SECONDS, self.file)
        timer.daemon = True
        timer.start()

    def file(self) -> Path:
        """The script's file, made now if it is not there yet."""
        with self._lock:
            if not self.path.exists():
                import vl_convert

                self.path.parent.mkdir(parents=True, exist_ok=True)
                part = self.path.with_suffix(f".{os.getpid()}.part")
                # Without a snippet the bundle sets window.vegaEmbed; its type stub wrongly asks for one.
                script = vl_convert.javascript_bundle(vl_version=VEGA_LITE)  # type: ignore[call-arg]
                part.write_text("(() => {" + script + "})();", encoding="utf-8")
                part.replace(self.path)
        return self.path
