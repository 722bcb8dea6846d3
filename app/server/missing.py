"""What an address shows that does not exist: a page of the lab to people, the plain error to programs."""

from __future__ import annotations

import sqlite3

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Mount

from app.shared.frame import header
from app.shared.lab import Lab
from app.shared.render import render

# First parts of addresses that pages and programs fetch, not people.
FETCHED = {"gradio_api", "lab", "static", "assets", "svelte", "theme.css"}


def add_missing_page(site: FastAPI, lab: Lab) -> None:
    """Answer unknown addresses with the page, those of Gradio, which is mounted already, included."""

    def missing(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        first = request.url.path.split("/")[1]
        # A download is followed by a person in a browser, or fetched by a program, which does not ask for HTML.
        fetched = first in FETCHED or (first == "export" and "text/html" not in request.headers.get("accept", ""))
        if request.method not in ("GET", "HEAD") or fetched:
            return JSONResponse({"detail": error.detail}, error.status_code, error.headers)
        words = error.detail if first == "export" else ""
        try:
            worker = lab.worker_state()
        except sqlite3.Error:  # a damaged database: the page is missing all the same
            worker = "unknown"
        return HTMLResponse(
            render("server/missing.html", header=header("", worker, request.scope.get("account")), words=words), 404
        )

    mounted = [route.app for route in site.routes if isinstance(route, Mount)]
    for app in (site, *mounted):
        if isinstance(app, FastAPI):
            app.add_exception_handler(404, missing)
