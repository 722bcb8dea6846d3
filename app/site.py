"""The site: every page, the plain routes beside them, and the security in front of them."""

from __future__ import annotations

import glob
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import gradio as gr
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, RedirectResponse, Response

from app.ask.api import ask_api
from app.ask.exports import add_asking_export_routes
from app.ask.page import ask_page
from app.asking.asker import Asker
from app.asking.model_server import ModelServer
from app.attack.exports import add_attack_export_routes
from app.attack.page import attack_page
from app.design.hub_sizes import HubSizes
from app.design.page import design_page
from app.paper.exports import add_paper_export_routes
from app.paper.page import paper_page
from app.results.exports import add_export_routes
from app.results.model_card import add_model_card_route
from app.results.page import results_page
from app.runs.detail import run_page
from app.runs.home import home_page
from app.runs.page import runs_page
from app.server.accounts import add_accounts
from app.server.gradio_bounds import Pages, bound, housekeeping, keep_used_routes
from app.server.missing import add_missing_page
from app.server.openid import add_openid
from app.server.operation import Operation, operate
from app.server.page_script import PageScript
from app.server.people import add_people
from app.server.roles import NamedByProxy
from app.server.security import SecurityHeaders, protect
from app.server.sign_in import THIS_MACHINE, Access, Provider
from app.server.streams import Streams
from app.server.theme import lab_theme
from app.server.trouble import say_troubles
from app.server.uploads import KEPT_SECONDS, make_uploads
from app.shared.frame import page_frame
from app.shared.lab import Lab
from app.shared.vega import Bundle
from app.studies.exports import add_study_export_routes
from app.studies.page import studies_page
from engine.models.catalogue import use_home
from engine.models.permitted import permits
from engine.serving.guard import LOCAL_HOSTS

# Styles, scripts and the icon lie beside the page they belong to.
STATIC = {p.name: p for p in Path(__file__).parent.glob("*/*") if p.suffix in (".css", ".js", ".svg")}
TITLE = "Rote Lab"


@cache
def _version() -> str:
    """Changes whenever a static file does, so that browsers may keep them."""
    return str(max(int(path.stat().st_mtime) for path in STATIC.values()))


def _head() -> str:
    """What Gradio adds to a page's head, behind its own styles, over which ours have the last word."""
    return (
        '<meta name="description" content="A lab for knowledge-injection experiments.">'
        f'<link rel="stylesheet" href="/lab/style.css?{_version()}">'
        f'<link rel="icon" href="/lab/icon.svg?{_version()}" type="image/svg+xml">'
    )


def _opening() -> str:
    """What stands first in the head of every document."""
    return f'<title>{TITLE}</title><script src="/lab/site.js?{_version()}"></script>'


def build_pages(lab: Lab, asker: Asker, outside: Mapping[str, str] | None = None) -> Pages:
    """All pages of the lab. A further page is one more `begin` with a function that builds its components.

    `outside`: see `build_site`.
    """
    with Pages(title=TITLE, analytics_enabled=False, delete_cache=(60, int(KEPT_SECONDS))) as demo:
        page_frame(lab, "/")
        home_page(lab)
        ask_api(lab, asker)
        for name, build in {
            "Design": lambda: design_page(lab.home, HubSizes(outside)),
            "Runs": lambda: runs_page(lab),
            "Run": lambda: run_page(lab),
            "Results": lambda: results_page(lab),
            "Ask": lambda: ask_page(lab, asker),
            "Attack": lambda: attack_page(lab, asker),
            "Studies": lambda: studies_page(lab),
            "Paper": lambda: paper_page(lab),
        }.items():
            demo.begin(name, name.lower())
            page_frame(lab, f"/{name.lower()}")
            build()
    return demo


def build_site(
    home: Path,
    access: Access = THIS_MACHINE,
    server: ModelServer | None = None,
    worker_starts: Callable[[], bool] = lambda: False,
    outside: Mapping[str, str] | None = None,
    openid: Provider | None = None,
    passwords: bool = False,
) -> FastAPI:
    """The whole web application over one home folder.

    `access`: who may ask; `server` answers questions; `worker_starts`: see `Lab`; `outside`: the environment of
    processes that may ask the hub for a model's size, None for none; `openid`: who signs people in, where they have
    accounts, and `passwords`: whether the lab's own accounts may sign in beside.
    """
    make_uploads(home)
    use_home(home)
    lab = Lab(home, worker_starts)
    asker = Asker(lab, server or ModelServer(home))
    asker.start()
    bundle = Bundle(home)
    bundle.prepare()
    site = FastAPI(title=TITLE, docs_url=None, redoc_url=None, openapi_url=None, lifespan=housekeeping)

    @site.get("/lab/{name}")
    def static_file(name: str, request: Request) -> Response:
        keep = {"Cache-Control": "public, max-age=31536000, immutable" if request.url.query else "no-cache"}
        if name == "vega.js":
            return FileResponse(bundle.file(), media_type="text/javascript", headers=keep)
        if name in STATIC:
            return FileResponse(STATIC[name], headers=keep)
        return Response("There is no such file.", 404, media_type="text/plain")

    @site.get("/query")
    def first_address_of_ask(request: Request) -> Response:
        """Links that people sent before the page Ask had its name lead to it."""
        return RedirectResponse(f"/ask?{request.url.query}".rstrip("?"), 308)

    add_export_routes(site, lab)
    add_asking_export_routes(site, lab)
    add_attack_export_routes(site, lab)
    add_study_export_routes(site, lab)
    add_paper_export_routes(site, lab)
    add_model_card_route(site)
    registry = operate(site, lab)
    let_in = None
    if access.accounts:
        people = add_accounts(site, lab, passwords or openid is None, openid.name if openid else "", access.role)
        let_in = people.let_in
        if openid:
            add_openid(site, people, openid, secure=not access.hosts <= LOCAL_HOSTS)
    elif access.user_header:
        let_in = NamedByProxy(lab, access.user_header, access.role).let_in
    if let_in:
        add_people(site, lab, passwords=access.accounts and (passwords or openid is None))
    with warnings.catch_warnings():
        # Gradio warns of a mode (rendering on the server) that nobody asked for.
        warnings.filterwarnings("ignore", message="SSR mode is not supported")
        pages = build_pages(lab, asker, outside)
        # Facts that come later are taught to the model of an earlier run.
        pages.models = permits((*access.models, f"{glob.escape(str(home.resolve()))}/runs/*"))
        pages.people = let_in is not None
        bound(pages)
        gr.mount_gradio_app(
            site,
            pages,
            path="/",
            theme=lab_theme(),
            head=_head(),
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            show_error=False,
            max_file_size="20mb",
            ssr_mode=False,
        )
    say_troubles(site, pages)
    keep_used_routes(site)
    add_missing_page(site, lab)
    site.add_middleware(Streams, queue=pages._queue)
    site.add_middleware(PageScript, script=_opening(), pages={"/", *(f"/{path}" for path, *_ in pages.pages)})
    protect(site, access, let_in)
    site.add_middleware(Operation, lab=lab, registry=registry)
    site.add_middleware(SecurityHeaders)
    return site
