"""Every relative link in the Markdown documents leads to a file that exists: `python -m tools.links`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def dead_links() -> list[str]:
    """Links of the tracked Markdown files whose target is missing, as `file: target`."""
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "*.md"], capture_output=True, text=True, check=True)
    dead = []
    for name in listed.stdout.splitlines():
        for target in LINK.findall((ROOT / name).read_text(encoding="utf-8")):
            path = target.partition("#")[0]
            if path and "://" not in path and not (ROOT / name).parent.joinpath(path).exists():
                dead.append(f"{name}: {target}")
    return dead


if __name__ == "__main__":
    problems = dead_links()
    print("\n".join(problems) or "no dead links", file=sys.stderr if problems else sys.stdout)
    sys.exit(bool(problems))
