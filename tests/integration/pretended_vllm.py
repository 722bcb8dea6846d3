"""A stand-in for vLLM on a GPU that no test machine has: it takes its part of a pretended memory, as vLLM does.

    python pretended_vllm.py PORT PART BOOK SECONDS

BOOK is a folder with a file for each living server, `PID.starting` or `PID.ready`, that holds its part. As vLLM it ends
where the others leave too little; and where another one starts at the same time, whose memory it would measure wrongly.
What went wrong is added to BOOK/wrong.txt. It starts in so many seconds, and answers each question in a fifth of that.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

port, part, book, seconds = int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])


def living() -> dict[Path, float]:
    """The others in the book that still live."""
    found = {}
    for page in book.glob("*.*"):
        if page.stem.isdecimal() and page.stem != str(os.getpid()) and Path(f"/proc/{page.stem}").exists():
            found[page] = float(page.read_text() or 1)
    return found


def refuse(words: str) -> None:
    """End as vLLM does, and leave a word for the test."""
    with (book / "wrong.txt").open("a") as file:
        file.write(words + "\n")
    sys.exit(f"ValueError: {words}")


class Answers(BaseHTTPRequestHandler):
    """Enough of the protocol for a question."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.reply({})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or "{}")
        time.sleep(seconds / 5)
        choices = [{"index": 0, "text": "yes", "finish_reason": "stop"}]
        self.reply({"id": "1", "model": asked.get("model", ""), "choices": choices})

    def reply(self, body: object) -> None:
        """Send JSON."""
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing is printed."""


mine = book / f"{os.getpid()}.starting"
mine.write_text(str(part))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
try:
    with (book / "starts.txt").open("a") as file:
        file.write(f"{part}\n")
    others = living()
    if any(page.suffix == ".starting" for page in others):
        refuse("another server starts at the same time")
    if sum(others.values()) + part > 0.95:
        refuse(f"free memory is less than desired GPU memory utilization ({part})")
    time.sleep(seconds)
    mine = mine.rename(mine.with_suffix(".ready"))
    ThreadingHTTPServer(("127.0.0.1", port), Answers).serve_forever()
finally:
    mine.unlink(missing_ok=True)
