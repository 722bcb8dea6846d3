"""A stand-in for vLLM on GPUs that no test machine has: it takes its part of a pretended memory, as vLLM does.

    python pretended_vllm.py BOOK SECONDS, and then the options of a real vLLM

BOOK is a folder with a file for each living server, `PID.starting` or `PID.ready`, that holds its part and the GPUs it
takes it of: as many of CUDA_VISIBLE_DEVICES as its tensor parallel size says. As vLLM it ends where it sees too few of
them, where the others leave too little of one; and where another one starts at the same time, whose memory it would
measure wrongly. What went wrong is added to BOOK/wrong.txt. It starts in so many seconds, and answers each question in
a fifth of that.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

parser = argparse.ArgumentParser(allow_abbrev=False)
parser.add_argument("book", type=Path)
parser.add_argument("seconds", type=float)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--gpu-memory-utilization", type=float, required=True)
parser.add_argument("--tensor-parallel-size", type=int, default=1)
options = parser.parse_known_args()[0]
book, seconds, part = options.book, options.seconds, options.gpu_memory_utilization
seen = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
gpus = seen[: options.tensor_parallel_size]


def living() -> dict[Path, dict[str, float]]:
    """The others in the book that still live, with what each takes of which GPU."""
    found = {}
    for page in book.glob("*.*"):
        if page.stem.isdecimal() and page.stem != str(os.getpid()) and Path(f"/proc/{page.stem}").exists():
            found[page] = dict.fromkeys(gpus, 1.0) if not (text := page.read_text()) else json.loads(text)
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
mine.write_text(json.dumps(dict.fromkeys(gpus, part)))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
try:
    with (book / "starts.txt").open("a") as file:
        file.write(f"{part} {' '.join(gpus)}\n")
    if len(seen) != options.tensor_parallel_size:
        refuse(f"{options.tensor_parallel_size} GPUs are needed, and {len(seen)} are seen")
    others = living()
    if any(page.suffix == ".starting" for page in others):
        refuse("another server starts at the same time")
    for gpu in gpus:
        if sum(taken.get(gpu, 0) for taken in others.values()) + part > 0.95:
            refuse(f"free memory of {gpu} is less than desired GPU memory utilization ({part})")
    time.sleep(seconds)
    mine = mine.rename(mine.with_suffix(".ready"))
    ThreadingHTTPServer(("127.0.0.1", options.port), Answers).serve_forever()
finally:
    mine.unlink(missing_ok=True)
