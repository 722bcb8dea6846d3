"""The command `rote-lab`: everything that `python -m engine` does, and the page, as `python -m app` opens it.

rote-lab page [--host 127.0.0.1] [--port 7860] [--home DIR] [--no-worker]
rote-lab presets
"""

from __future__ import annotations

from app.__main__ import main as page
from engine.commands.main import app, main

__all__ = ["main"]

# The engine cannot know the page, so the page joins the engine's commands here.
app.command("page")(page)
