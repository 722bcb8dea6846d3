"""A search field whose event fires for typing, pasting and clearing alike (Gradio's own fires for keys only)."""

from __future__ import annotations

from typing import Any

import gradio as gr
from markupsafe import escape

from app.shared.frame import QUIET, html

# While an answer is under way further typing must not get lost.
TYPED: dict[str, Any] = QUIET | {"trigger_mode": "always_last"}


def search_box(placeholder: str, *, address_key: str = "") -> gr.HTML:
    """A field whose value is its text and whose event is `typed`. `address_key`: its name in the page's address."""
    field = f'<input type="search" aria-label="Search" placeholder="{escape(placeholder)}" maxlength="200" dir="auto">'
    return html(
        "",
        html_template=f'<div class="lab search">{field}</div>',
        js_on_load=f"roteLab.search(element, props, trigger, watch, 'typed', '{address_key}');",
    )
