"""Nobody reads a file through the page: not by what Gradio takes for an upload, wherever it is put, nor by a route."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import gradio.processing_utils
import pytest

from tests.integration.lab import wait_until
from tests.integration.page import Asked, Here, ask

SECRET = "nobody-else-may-read-this"
META = {"_type": "gradio.FileData"}
# Who asks: another account where these tests may become one, else this one, which is to get no more.
OTHER = "nobody" if os.getuid() == 0 else None


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("private") / "notes.csv"
    file.write_text(f"subject,object\n{SECRET},{SECRET}\n")
    file.chmod(0o600)
    return file


def disguises(secret: Path) -> list[Any]:
    """The file as everything that Gradio might take for an upload, and addresses to be fetched."""
    given: list[dict[str, Any]] = [
        {"path": str(secret)},
        {"path": str(secret), "meta": META},
        {"path": str(secret), "meta": META, "is_stream": True},
        {"path": str(secret), "meta": META, "orig_name": "a.csv", "url": f"/gradio_api/file={secret}", "size": 1},
        {"path": f"{secret.parent}/x/../{secret.name}", "meta": META},
        {"path": f"/proc/self/root{secret}", "meta": META},
        {"path": f"file://{secret}", "meta": META},
        {"path": "lab.db", "meta": META},
        {"path": "", "url": f"file://{secret}", "meta": META},
        {"path": "https://hf.co/notes.csv", "meta": META},
        {"path": "x", "url": "http://127.0.0.1:9/notes.csv", "meta": META},
    ]
    return [*given, {"value": given[1]}, [[given[1]]], {"data": [{"deep": given[1]}], "headers": []}]


def test_no_function_takes_a_file_that_was_not_uploaded(
    here: Here, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []

    async def fetch(url: str, cache_dir: str) -> str:
        fetched.append(url)
        return str(secret)

    monkeypatch.setattr(gradio.processing_utils, "async_ssrf_protected_download", fetch)
    (config,) = ask(here.port, [Asked("GET", "/config")], OTHER, whole=True)
    functions = json.loads(config.text)["dependencies"]
    assert len(functions) > 50
    requests = []
    for function in functions:
        route = "queue/join" if function["queue"] else "run/predict"
        for value in (disguises(secret), disguises(secret)[1]):
            body = {"data": [value] * len(function["inputs"]), "fn_index": function["id"], "session_hash": "stranger"}
            if function["inputs"] and function["backend_fn"]:
                requests.append(Asked("POST", f"/gradio_api/{route}", body=json.dumps(body)))
    assert len(requests) > 100
    told = ask(here.port, requests, OTHER, whole=True)
    queue = here.pages._queue
    wait_until(lambda: not queue.event_ids_to_events, "the last queued call")
    assert {answer.status for answer in told} <= {200, 404, 500}
    assert not any(SECRET in answer.text for answer in told)
    assert fetched == [], "the server asks no address that a page names"
    # By a process of its own: closing a file of the database in this one would let go SQLite's locks on it.
    found = subprocess.run(["grep", "-rlF", SECRET, str(here.home)], capture_output=True, text=True, check=False)
    assert found.returncode == 1, found.stdout
    assert len([answer for answer in told if "takes no file" in answer.text]) > 40


def test_no_route_gives_a_file_out(here: Here, secret: Path) -> None:
    inside = here.home / "uploads" / "mine.csv"
    inside.write_text(SECRET)
    ways = []
    for file in (secret, inside, here.home / "lab.db", Path("/etc/passwd"), Path("app/site.py")):
        ways += [f"/gradio_api/file={file}", f"/gradio_api/file/{file}", f"/file={file}", f"/file/{file}"]
        ways += [f"/static/..%2f..{file}", f"/assets/%2e%2e/%2e%2e{file}", f"/lab/..%2f{file}", f"//{file}"]
        ways += [f"/export/..%2f..{file}/log.txt", f"/svelte/{file}", f"/gradio_api/proxy=file://{file}"]
    ways += ["/?deep_link=..", "/config?deep_link=../uploads/mine", "/gradio_api/deep_link?session_hash=x"]
    told = ask(here.port, [Asked("GET", way) for way in ways], OTHER, whole=True)
    for way, answer in zip(ways, told, strict=True):
        assert SECRET not in answer.text, way
        assert "root:x:0" not in answer.text, way
        assert "SQLite format" not in answer.text, way
        assert "def build_site" not in answer.text, way
    inside.unlink()


def test_what_was_uploaded_can_be_read_by_the_page_alone(here: Here) -> None:
    boundary = "lines-between"
    text = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="../../facts.csv"\r\n\r\n'
        f"subject,object\nVurnia Virik,Salvis Barmont\n\r\n--{boundary}--\r\n"
    )
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    (told,) = ask(here.port, [Asked("POST", "/gradio_api/upload", headers, text)], whole=True)
    (path,) = json.loads(told.text)
    assert Path(path).is_relative_to(here.home / "uploads")
    assert (here.home / "uploads").stat().st_mode & 0o777 == 0o700
    (upload, *_) = [f for f in here.pages.fns.values() if f.inputs and type(f.inputs[0]).__name__ == "UploadButton"]
    data = [{"path": path, "meta": META}, *[None] * (len(upload.inputs) - 1)]
    body = json.dumps({"data": data, "fn_index": upload._id, "session_hash": "own"})
    route = "queue/join" if upload.queue else "run/predict"
    (answer,) = ask(here.port, [Asked("POST", f"/gradio_api/{route}", body=body)], whole=True)
    assert "takes no file" not in answer.text
    (served,) = ask(here.port, [Asked("GET", f"/gradio_api/file={path}")])
    assert served.status == 404
