"""What one tab of a browser shows, what it was told, and which of the fields it sends a person changed in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from app.design.draft import SPLITS, Draft, find_relation
from app.design.fields import BY_PATH
from app.design.form import FORM_KEYS, commit, digest, given
from storage.drafts import Change

LABELS = {
    "model_kind": "Model",
    "model_name": "Model",
    "method": "Tuning",
    "relation.name": "the relation's name",
    "relation.key_token": "Key token",
    "relation.key_template": "Sequence of stage 1",
    "relation.facts_from": "where the facts come from",
    "relation.generate": "How many facts",
    "relation.names": "what names they have",
    "relation.subjects_of": "whose objects the subjects are",
    "relation.prompts_from": "where the prompts come from",
    **{f"prompts.{split}": f"the {split} prompts" for split in SPLITS},
}


@dataclass(frozen=True)
class Screen:
    """What one tab of a browser shows: whose draft, which of its relations, its prompts of which language.

    `seen`: the draft's number when the tab was last told something; `given`: the digests of its fields then.
    """

    draft_id: str
    tab: str = ""
    relation_id: str = ""
    language: str = ""
    seen: int = 0
    given: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, draft_id: str, text: str) -> Screen:
        """The screen by the text that the page keeps beside its fields; an empty one where it is none."""
        try:
            data = json.loads(text)
            relation_id, language, tab, seen, digests = (
                data[key] for key in ("relation", "language", "tab", "seen", "given")
            )
            return cls(draft_id, str(tab)[:64], str(relation_id), str(language), int(seen), dict(digests))
        except (ValueError, TypeError, KeyError):
            return cls(draft_id)

    @property
    def text(self) -> str:
        """What `read` reads."""
        names = {"relation": self.relation_id, "language": self.language, "tab": self.tab}
        return json.dumps({**names, "seen": self.seen, "given": self.given})

    @property
    def order(self) -> dict[str, Any]:
        """By what a page knows an answer that was overtaken by a later one about the same draft."""
        return {"draft": self.draft_id, "revision": self.seen}

    def on(self, relation_id: str = "", language: str = "") -> Screen:
        """The same tab with another relation."""
        return replace(self, relation_id=relation_id, language=language)


@dataclass(frozen=True)
class Request:
    """What every event of the page brings: which screen its fields belong to, and what they hold.

    `step`: the tab's own count of what it asked, as requests overtake each other.
    """

    screen: Screen
    typed: Sequence[Any]
    step: int


def take_fields(change: Change, request: Request) -> None:
    """Take over what the person changed in this tab, and note for it what others changed meanwhile."""
    screen, memory, draft = request.screen, change.tab, change.draft
    if not screen.language or len(request.typed) != len(FORM_KEYS) or request.step <= memory.get("step", 0):
        return
    memory["step"] = request.step
    now = given(draft, screen.relation_id, screen.language)
    mine = {key: sent for key, sent in memory.get("mine", {}).items() if sent[0] > screen.seen}
    edits = {}
    for key, value in zip(FORM_KEYS, request.typed, strict=True):
        name, typed = _full_name(key, screen), digest(value)
        before = mine[name][1] if name in mine else screen.given.get(key, typed)
        if typed not in (before, now[key]):
            edits[key] = value
            mine[name] = [change.revision + 1, typed]
    memory["mine"] = mine
    _note_news(change, screen, now, set(edits), request)
    commit(draft, screen.relation_id, screen.language, edits)


def _full_name(key: str, screen: Screen) -> str:
    if key.startswith("prompts."):
        return f"{screen.relation_id} {screen.language} {key}"
    return f"{screen.relation_id} {key}" if key.startswith("relation.") else key


def _note_news(change: Change, screen: Screen, now: dict[str, str], edited: set[str], request: Request) -> None:
    memory, told = change.tab, change.tab.get("told", {})
    if memory.get("shows") != [screen.relation_id, screen.language]:
        return
    if screen.relation_id and find_relation(change.draft, screen.relation_id) is None:
        memory["gone"] = str(request.typed[FORM_KEYS.index("relation.name")] or "unnamed")[:40]
        now = {key: value for key, value in now.items() if not key.startswith(("relation.", "prompts."))}
    changed = [key for key in now if key in told and told[key] != now[key]]
    both = [_label(key) for key in changed if key in edited]
    news = [_label(key) for key in changed if key not in edited]
    if told.get("relations") != relation_list(change.draft):
        news.append("the list of relations")
    memory["news"] = list(dict.fromkeys([*memory.get("news", ()), *news]))
    memory["both"] = list(dict.fromkeys([*memory.get("both", ()), *both]))
    told.update(now)


def relation_list(draft: Draft) -> str:
    """What stands for which relations there are."""
    return digest(" ".join(relation["id"] for relation in draft["relations"]))


def _label(key: str) -> str:
    return LABELS.get(key) or (BY_PATH[key].label if "." not in key else f"{BY_PATH[key].label} ({_part(key)})")


def _part(path: str) -> str:
    return {"stage1": "stage 1", "stage2": "stage 2"}.get(path.split(".")[0], path.split(".")[0])


def present(change: Change, screen: Screen, anew: bool) -> tuple[Screen, bool, list[str]]:
    """What the tab is told next: the screen, whether it needs the rows of the table, and sentences of what others did.

    `anew`: the tab is shown everything again.
    """
    memory, draft = change.tab, change.draft
    facts = facts_digest(draft, screen.relation_id)
    rows_needed = anew or memory.get("facts") != facts
    if rows_needed and not anew and "facts" in memory:
        memory["news"] = [*memory.get("news", ()), "the facts"]
    sentences = _sentences(memory)
    told = given(draft, screen.relation_id, screen.language)
    memory |= {"shows": [screen.relation_id, screen.language], "facts": facts}
    memory["told"] = told | {"relations": relation_list(draft)}
    return replace(screen, seen=change.revision, given=told), rows_needed, sentences


def facts_digest(draft: Draft, relation_id: str) -> str:
    """What stands for the rows of the table of facts."""
    relation = find_relation(draft, relation_id)
    return digest([relation["facts"], sorted(relation["alternatives"])]) if relation else ""


def _sentences(memory: dict[str, Any]) -> list[str]:
    news, both, gone = memory.pop("news", []), memory.pop("both", []), memory.pop("gone", "")
    sentences = []
    if gone:
        sentences.append(f"The relation ‘{gone}’ was removed in another tab. Undo brings it back.")
    if news:
        sentences.append(f"Changed in another tab: {', '.join(news[:6])}{' and more' * (len(news) > 6)}.")
    if both:
        sentences.append(f"Changed in both tabs: {', '.join(both[:6])}. What was typed here is kept, as it came later.")
    return sentences
