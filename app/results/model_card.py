"""The cards of the models that the lab knows as pages, and the terms under which they may be used."""

from __future__ import annotations

import re

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from markdown_it import MarkdownIt
from markupsafe import Markup

from app.shared.render import render
from engine import CODE_ROOT
from engine.models.catalogue import CARDS, INSTALLABLE, KNOWN
from engine.models.source import EMBEDDED

CARD = CODE_ROOT / "engine" / "base" / "weights" / "README.md"


def card_of(model: str) -> str:
    """The address of a model's card; '' where the lab has none."""
    return "/model-card" if model == EMBEDDED else f"/model-card/{model}" if model in INSTALLABLE else ""


def add_model_card_route(site: FastAPI) -> None:
    """Add `/model-card` of the embedded base, and that of each model by its name, with its terms."""

    @site.get("/model-card")
    def model_card() -> HTMLResponse:
        if not CARD.is_file():
            return HTMLResponse(render("results/model_card.html", card=None), 404)
        return HTMLResponse(render("results/model_card.html", card=card_html(CARD.read_text(encoding="utf-8"))))

    @site.get("/model-card/{name}")
    def known_card(name: str) -> HTMLResponse:
        if name not in INSTALLABLE:
            return HTMLResponse(render("results/model_card.html", card=None), 404)
        text = (CARDS / KNOWN[name].card).read_text(encoding="utf-8")
        return HTMLResponse(render("results/model_card.html", card=card_html(text)))

    @site.get("/model-card/{name}/terms")
    def terms(name: str) -> Response:
        if name not in INSTALLABLE:
            return PlainTextResponse("There is no such model.", 404)
        return PlainTextResponse(KNOWN[name].licence.text)


def card_html(text: str) -> Markup:
    """Markdown as HTML. HTML inside it is shown as text, and links lead only to web addresses."""
    text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    html = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    # A wide table scrolls by itself, also by keys.
    return Markup(html.replace("<table>", '<table tabindex="0">'))
