"""Every route that the lab has, found by asking it, and who gets what: a new route has to be put into the table."""

from __future__ import annotations

import os
import re
import socket
from ipaddress import ip_network
from pathlib import Path

import httpx
import pytest
from starlette.routing import Mount, Route

from app.server.sign_in import NOBODY, NOT_THE_PROXY, Access, Door
from engine.serving.guard import STRANGE_HOST, STRANGE_ORIGIN
from tests.integration.page import Asked, Here, ask, carried_out

API = "/gradio_api"
# The status that the lab's own page is answered, here with nothing in the lab: 404 where there is no such run.
TABLE = {
    "GET /": 200, "HEAD /": 200, "GET /design": 200, "GET /runs": 200, "GET /run": 200, "GET /results": 200,
    "GET /ask": 200, "GET /attack": 200, "GET /studies": 200, "GET /paper": 200,
    "GET /design/": 301, "GET /runs/": 301, "GET /run/": 301, "GET /results/": 301, "GET /ask/": 301,
    "GET /attack/": 301, "GET /studies/": 301, "GET /paper/": 301, "GET /query": 308,
    "GET /lab/{name}": 404, "GET /static/{path:path}": 404, "GET /assets/{path:path}": 404,
    "GET /svelte/{path:path}": 404, "GET /theme.css": 200, f"GET {API}/theme.css": 200, "GET /favicon.ico": 200,
    "GET /robots.txt": 200, "GET /manifest.json": 200,
    "GET /export/{run_id}/results.csv": 404, "GET /export/{run_id}/answers.csv": 404,
    "GET /export/{run_id}/results.json": 404, "GET /export/{run_id}/experiment.yaml": 404,
    "GET /export/{run_id}/report.html": 404, "GET /export/{run_id}/log.txt": 404,
    "GET /export/{run_id}/base-text.json": 404, "GET /export/{run_id}/dataset.zip": 404,
    "GET /export/{run_id}/task.zip": 404, "GET /export/{run_id}/representations.csv": 404,
    "GET /export/asked/{asking}/answers.csv": 404, "GET /export/asked/{asking}/answers.json": 404,
    "GET /export/attack/{attack}/rows.csv": 404, "GET /export/attack/{attack}/report.html": 404,
    "GET /export/study/{study}/figures.csv": 404, "GET /export/study/{study}/table.tex": 404,
    "GET /export/study/{study}/study.yaml": 404, "GET /export/study/{study}/figures.parquet": 404,
    "GET /export/study/{study}/report.html": 404, "GET /export/paper/{table}/figures.csv": 404,
    "GET /metrics": 200, "GET /model-card": 200, "GET /model-card/{name}": 404, "GET /model-card/{name}/terms": 404,
    "GET /config": 200, "GET /config/": 200, f"GET {API}/info": 200, f"GET {API}/info/": 200,
    f"GET {API}/app_id": 200, f"GET {API}/app_id/": 200,
    f"GET {API}/heartbeat/{{session_hash}}": 200, f"GET {API}/queue/data": 200,
    f"GET {API}/call/{{api_name}}/{{event_id}}": 200, f"GET {API}/call/v2/{{api_name}}/{{event_id}}": 200,
    f"GET {API}/upload_progress": 404,
    f"POST {API}/run/{{api_name}}": 422, f"POST {API}/run/{{api_name}}/": 422,
    f"POST {API}/api/{{api_name}}": 422, f"POST {API}/api/{{api_name}}/": 422,
    f"POST {API}/call/{{api_name}}": 422, f"POST {API}/call/{{api_name}}/": 422,
    f"POST {API}/call/v2/{{api_name}}": 500, f"POST {API}/call/v2/{{api_name}}/": 500,
    f"POST {API}/queue/join": 422, f"POST {API}/upload": 400, f"POST {API}/cancel": 422, f"POST {API}/reset": 422,
    f"POST {API}/reset/": 422,
}  # fmt: skip
UPLOADS = f"GET {API}/upload_progress"
# What scripts may call. Every other function is a page's own.
FUNCTIONS = {
    "list_models_to_ask", "ask_about_fact", "ask_free_text", "ask_all_facts", "ask_another_model", "read_answers",
    "search_askings", "next_token_alternatives",
}  # fmt: skip
PLACES_FOR_UPLOADS = 4  # two upload buttons, and what goes on with an uploaded table: looking at it, taking it


def routes_of(here: Here) -> list[str]:
    """Every route as `METHOD /path`, those of what is mounted included."""
    found = []
    for route in here.site.routes:
        inner = route.app.routes if isinstance(route, Mount) else [route]  # type: ignore[attr-defined]
        for one in inner:
            assert isinstance(one, Route), f"{one} can be asked without any of the methods below"
            found += [
                f"{method} {one.path}" for method in sorted(one.methods or ()) if (method != "HEAD" or one.path == "/")
            ]
    return list(dict.fromkeys(found))


def requests_of(here: Here, **headers: str) -> list[Asked]:
    """One request to each route."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    found = []
    for route in routes_of(here):
        method, path = route.split(" ", 1)
        body = "{}" if method == "POST" else ""
        query = "?session_hash=none&upload_id=none" if "queue/data" in path or "upload_progress" in path else ""
        found.append(Asked(method, re.sub(r"\{[^}]*\}", "none", path) + query, dict(named), body))
    return found


def test_every_route_is_in_the_table(here: Here) -> None:
    assert set(routes_of(here)) == set(TABLE)


def test_own_pages_get_what_they_ask_for(here: Here) -> None:
    own = requests_of(here, Origin=here.address, Sec_Fetch_Site="same-origin")
    assert statuses(here, own, None) == TABLE


def test_each_document_brings_its_script_before_anything_of_gradio_runs(here: Here) -> None:
    paths = [f"/{path}" for path, *_ in here.pages.pages]
    assert len(paths) == 9
    for path in paths:
        got = httpx.get(here.address + path)
        assert got.text.count("/lab/site.js") == got.text.count("<title>Rote Lab</title>") == 1, path
        assert got.text.index('<script src="/lab/site.js') < got.text.index("window.gradio_config"), path
        assert int(got.headers["content-length"]) == len(got.content), path


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another account")
def test_another_account_of_this_machine_gets_what_a_page_gets(here: Here) -> None:
    """As docs/security.md says: on the loopback address the lab can't tell accounts apart."""
    assert statuses(here, requests_of(here), "nobody") == TABLE


def test_pages_of_other_sites_get_nothing(here: Here) -> None:
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        told = ask(here.port, requests_of(here, Origin=origin))
        assert {(t.status, t.text) for t in told} == {(403, STRANGE_ORIGIN), (403, "")}, "the empty one is HEAD's"
        assert not [t for t in told if any(name.startswith("access-control") for name in t.headers)]
    posts = [request for request in requests_of(here, Sec_Fetch_Site="cross-site") if request.method == "POST"]
    assert {t.status for t in ask(here.port, posts)} == {403}


def test_whoever_calls_the_lab_by_another_name_gets_nothing(here: Here) -> None:
    for host in ("evil.example", f"evil.example:{here.port}", "127.0.0.1.evil.example"):
        told = ask(here.port, requests_of(here, Host=host))
        assert {(t.status, t.text) for t in told} == {(403, STRANGE_HOST), (403, "")}


def test_behind_a_proxy_nobody_gets_anything_past_it_or_unnamed(here: Here) -> None:
    access = Access(peers=(ip_network("10.0.0.5"),), user_header="X-Forwarded-User")
    door = Door(here.site, access)

    async def through_the_door(peer: str, **headers: str) -> set[tuple[int, str]]:
        transport = httpx.ASGITransport(door, client=(peer, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:7860") as client:
            told = [
                await client.request(r.method, r.path, headers=r.headers, content=r.body)
                for r in requests_of(here, **headers)
            ]
        return {(t.status_code, t.text) for t in told if t.request.method != "HEAD"}

    forged = {"X_Forwarded_User": "ada", "X_Forwarded_For": "10.0.0.5", "X_Real_IP": "10.0.0.5"}
    assert carried_out(through_the_door("10.0.0.6", **forged)) == {(403, NOT_THE_PROXY)}
    assert carried_out(through_the_door("127.0.0.1", **forged)) == {(403, NOT_THE_PROXY)}
    assert carried_out(through_the_door("10.0.0.5")) == {(401, NOBODY)}


def test_functions_for_scripts_are_known_and_files_go_to_few_places(here: Here) -> None:
    functions = list(here.pages.fns.values())
    assert {f.api_name for f in functions if f.api_visibility == "public"} == FUNCTIONS
    assert {f.api_visibility for f in functions} == {"public", "private"}
    taking = [f for f in functions if any(type(block).__name__ == "UploadButton" for block in f.inputs)]
    assert len(taking) == PLACES_FOR_UPLOADS
    unknown = {type(block).__name__ for f in functions for block in f.inputs} - {
        "Api", "BrowserState", "Dropdown", "HTML", "Number", "Radio", "Textbox", "UploadButton", "Checkbox"
    }  # fmt: skip
    assert unknown == set(), "does this component read files, addresses or code?"


def statuses(here: Here, requests: list[Asked], user: str | None) -> dict[str, int]:
    """What each route answers to that account."""
    told = {route: told.status for route, told in zip(routes_of(here), ask(here.port, requests, user), strict=True)}
    # What Gradio keeps of uploads in a process belongs to the first server in it, which another test may have started.
    told[UPLOADS] = TABLE[UPLOADS] if told.get(UPLOADS) == 500 else told[UPLOADS]
    return told


def test_the_document_has_this_table() -> None:
    text = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
    missing = [route for route in TABLE if f"`{route.split(' ', 1)[1].rstrip('/') or '/'}`" not in text]
    assert missing == []


@pytest.mark.parametrize(
    ("head", "statuses"),
    [
        ("GET / HTTP/1.0", {403}),
        ("GET / HTTP/1.1", {400}),
        ("GET / HTTP/1.1\nHost:", {403}),
        ("GET / HTTP/1.1\nHost: {own}\nHost: evil.example", {400, 403}),
        ("GET / HTTP/1.1\nHost: evil.example\nHost: {own}", {400, 403}),
        ("GET http://evil.example/ HTTP/1.1\nHost: evil.example", {403}),
        ("GET http://evil.example/ HTTP/1.1\nHost: {own}", {404}),
        ("GET / HTTP/1.1\nHost: evil.example\nX-Forwarded-Host: {own}", {403}),
        ("GET / HTTP/1.1\nHost: {own}\nUpgrade: websocket\nConnection: Upgrade\nOrigin: http://evil.example", {403}),
        ("OPTIONS / HTTP/1.1\nHost: {own}\nOrigin: http://evil.example\nAccess-Control-Request-Method: POST", {403}),
    ],
)
def test_strange_heads_are_refused(here: Here, head: str, statuses: set[int]) -> None:
    text = head.format(own=f"127.0.0.1:{here.port}").replace("\n", "\r\n")
    with socket.create_connection(("127.0.0.1", here.port), timeout=120) as connection:
        connection.sendall(f"{text}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert int(answer.split()[1]) in statuses
    assert b"access-control-allow-origin" not in answer.lower()
