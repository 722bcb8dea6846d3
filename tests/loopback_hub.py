"""A small Hugging Face hub on this machine: serves folders as models, slowly, gated, or cut off, as a test wants it.

with loopback_hub({"someone/tiny": folder}) as hub:
    os.environ["HF_ENDPOINT"] = hub.address
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

PIECE = 2**16
SHA = "a" * 40
WEIGHTS = ".safetensors"


@dataclass
class Hub:
    """What the hub has and how it behaves; to be changed while it runs.

    token: None where everybody may read, else whom gated models are given to. bytes_a_second: of weights, 0 without
    limit. cuts: how many times more a file of weights ends after half of what was asked. down: answers 503.
    thinks: seconds before it says what a model is.
    asked: the requests so far, such as `GET /someone/tiny/resolve/…/model.safetensors 0`, with the first byte sent.
    """

    models: dict[str, Path]
    address: str = ""
    token: str | None = None
    bytes_a_second: int = 0
    cuts: int = 0
    down: bool = False
    thinks: float = 0
    asked: list[str] = field(default_factory=list)

    def sent(self, ending: str = WEIGHTS) -> list[str]:
        """The downloads of files that end so."""
        return [line for line in self.asked if line.startswith("GET") and line.split()[1].endswith(ending)]


def made_large(folder: Path, size: int = 40_000_000) -> Path:
    """The folder of a tiny model, whose weights got a tensor that nothing reads: the library writes 10 MB at once."""
    file = folder / "model.safetensors"
    save_file({**load_file(file), "nothing.weight": torch.zeros(size // 4)}, file, {"format": "pt"})
    return folder


def in_parts(folder: Path) -> Path:
    """The same model with its weights in two files and an index."""
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    index: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, folder / file, {"format": "pt"})
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    (folder / "model.safetensors").unlink()
    return folder


@contextmanager
def loopback_hub(models: dict[str, Path]) -> Iterator[Hub]:
    """Serve until the block ends."""
    hub = Hub(models)

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(head=True)

    def do_GET(self) -> None:
        self._answer(head=False)

    def log_message(self, format: str, *arguments: object) -> None:
        """Tests read `Hub.asked`."""

    def _answer(self, head: bool) -> None:
        hub, path = self.state, self.path.partition("?")[0]
        hub.asked.append(f"{self.command} {path} {self._first()}")
        if hub.down:
            return self._say(503, {"error": "the hub is down"})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/.+)?", path):
            time.sleep(hub.thinks)
            if (folder := hub.models.get(found[1])) is None:
                return self._say(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return self._say(200, _tree(folder) if found[2] == "tree" else _info(found[1], folder, self.path))
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/([^/]+)", path):
            return self._file(found[1], found[2], head)
        return self._say(404, {"error": "no such page"})

    def _file(self, model: str, name: str, head: bool) -> None:
        hub = self.state
        if hub.token is not None and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self._say(401, {"error": "gated"}, {"X-Error-Code": "GatedRepo"})
        file = hub.models.get(model, Path()) / name
        if not file.is_file():
            return self._say(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        content, first = file.read_bytes(), self._first()
        self.send_response(206 if first else 200)
        self.send_header("ETag", f'"{_etag(file)}"')
        self.send_header("X-Repo-Commit", SHA)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        if not head:
            self._send(content[first:], slowly=name.endswith(WEIGHTS))

    def _send(self, content: bytes, slowly: bool) -> None:
        hub = self.state
        cut = slowly and hub.cuts > 0
        hub.cuts -= cut
        end = len(content) // 2 if cut else len(content)
        try:
            for start in range(0, end, PIECE):
                self.wfile.write(content[start : min(end, start + PIECE)])
                if slowly and hub.bytes_a_second:
                    time.sleep(PIECE / hub.bytes_a_second)
        except ConnectionError:  # whoever asked was ended
            self.close_connection = True
        self.close_connection |= cut

    def _say(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _first(self) -> int:
        found = re.fullmatch(r"bytes=(\d+)-\d*", self.headers.get("Range", ""))
        return int(found[1]) if found else 0


def _info(model: str, folder: Path, asked: str) -> dict[str, object]:
    files = [
        {"rfilename": file.name, **(_sizes(file) if "blobs=" in asked else {})} for file in sorted(folder.iterdir())
    ]
    return {"_id": "1", "id": model, "modelId": model, "sha": SHA, "private": False, "tags": [], "siblings": files}


def _sizes(file: Path) -> dict[str, object]:
    """What the hub adds to a file's name; it keeps large files beside its git."""
    size, etag = file.stat().st_size, _etag(file)
    stored = {"lfs": {"sha256": etag, "size": size, "pointerSize": 130}} if file.name.endswith(WEIGHTS) else {}
    return {"size": size, "blobId": etag if not stored else "0" * 40, **stored}


def _tree(folder: Path) -> list[dict[str, object]]:
    files = sorted(folder.iterdir())
    return [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": _etag(f)} for f in files]


def _etag(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:40]
