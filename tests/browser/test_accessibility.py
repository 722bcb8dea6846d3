"""Every page, in both themes, breaks no rule of WCAG 2.1 level A or AA that axe-core can see."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from itertools import product
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Request

from tests.browser import pictures
from tests.browser.conftest import THEMES, serving

pytestmark = pytest.mark.browser
QUIET_LOOKS = 5
# Whether the header knows how the worker is, and every chart is drawn.
SETTLED = """() => (document.querySelector('.lab.top .worker[data-state]') || !document.querySelector('.lab.top'))
    && [...document.querySelectorAll('.chart')].every((c) => c.hidden || c.dataset.drawn || !c.offsetWidth)"""
SCAN = """async () => {
    const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'];
    const found = (await axe.run(document, {runOnly: tags, resultTypes: ['violations']})).violations;
    return found.flatMap((v) => v.nodes.map((n) => `${v.id}: ${n.target} ${n.html.slice(0, 200)} ${n.failureSummary}`));
}"""


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory, shared_attack: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A server over a lab with something on every page; its address, and the paths of the pages by name."""
    home = tmp_path_factory.mktemp("seen")
    pictures.seed(home, shared_attack)
    with serving(home) as address:
        yield address, pictures.addresses(home)


def test_no_page_breaks_a_rule_of_level_a_or_aa(chromium: Browser, seeded: tuple[str, dict[str, str]]) -> None:
    address, pages = seeded
    axe = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    found: list[str] = []
    seen = set()
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = Watched(context.new_page())
    for name, path in pages.items():
        page.open(address + path)  # in the theme that the page before was left in
        page.tab.evaluate(axe)
        for look in range(2):
            if look:
                page.toggle_theme()
            theme = page.tab.evaluate("document.body.classList.contains('dark') ? 'dark' : 'light'")
            seen.add((name, theme))
            found += [f"{theme}, {name}: {line}" for line in page.tab.evaluate(SCAN)]
    context.close()
    assert not found, "\n".join(found)
    assert seen == set(product(pages, THEMES))


class Watched:
    """A browser tab that knows what it has asked the server for and not yet got, and what went wrong meanwhile."""

    def __init__(self, tab: Page) -> None:
        self.tab = tab
        self._news: list[str] = []
        self._open: set[Request] = set()
        tab.on("request", lambda r: self._open.add(r) if re.search("/gradio_api/run/|/lab/vega.js", r.url) else None)
        tab.on("requestfinished", lambda r: self._open.discard(r))
        tab.on("requestfailed", lambda r: self._open.discard(r))
        tab.on("requestfailed", lambda r: self._news.append(f"{r.url}: {r.failure}"))
        tab.on("response", lambda r: self._news.append(f"{r.url}: {r.status}") if r.status >= 500 else None)
        tab.on("framenavigated", lambda frame: self._news.append(f"now at {frame.url}"))

    def open(self, address: str) -> None:
        """Go there and wait until the page shows what its load events brought."""
        self._news.clear()
        self.tab.goto(address)
        assert self._has_script(), f"{address} has no script: {self._news}"
        self.settle()

    def toggle_theme(self) -> None:
        """Change to the other theme."""
        assert self._has_script(), f"{self.tab.url} has lost its script: {self._news}"
        self.tab.evaluate("roteLab.toggleTheme()")
        self.settle()

    def _has_script(self) -> bool:
        return self.tab.evaluate("'roteLab' in window")

    def settle(self) -> None:
        """Wait until nothing is asked for and nothing grows."""
        self.tab.wait_for_function(SETTLED)
        sizes = [0]
        while len(sizes) < QUIET_LOOKS or len(set(sizes[-QUIET_LOOKS:])) > 1:
            self.tab.wait_for_timeout(60)
            size = 0 if self._open else self.tab.evaluate("document.querySelectorAll('*').length")
            sizes = [*sizes, size] if size else [0]
        self.tab.wait_for_function(SETTLED)
