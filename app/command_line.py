"""The command `rote-lab`: everything that `python -m engine` does, and what needs the page's parts: the page itself, as
`python -m app` opens it, and a study as a file. In a checkout: `python -m app.command_line export study …`.

rote-lab page [--host 127.0.0.1] [--port 7860] [--home DIR] [--no-worker]
rote-lab export study STUDY --to FILE.html
rote-lab presets
"""

from __future__ import annotations

import sys

from app.__main__ import main as page
from app.studies.command import export_study
from engine.commands.export import export_app
from engine.commands.main import app, main

__all__ = ["main"]

# The engine cannot know the page, so the page joins the engine's commands here.
app.command("page")(page)
export_app.command("study")(export_study)

if __name__ == "__main__":
    sys.exit(main())
