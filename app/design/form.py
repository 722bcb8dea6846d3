"""Between the page's fields and the draft: what each field shows, and what was typed into it.

Every handler hands over all fields at once, with the relation and language they belong to, so that nothing typed
gets lost or into the wrong relation, however fast somebody clicks on. Taken over is only what a person changed: what
differs from what this tab was given. So fields that were read before the server set them (an upload raises an event
of its own), or that another tab changed meanwhile, undo nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from hashlib import blake2s
from typing import Any

from app.design.draft import SPLITS, WITH_REASONING, Draft, corpus_prompts, find_relation
from app.design.fields import DEFAULTS, FIELDS
from engine.corpus.relations import LANGUAGES

MAX_TYPED_CHARACTERS = 200_000
MAX_WHOLE_NUMBER = 2**53
DRAFT_KEYS = ("model_kind", "model_name", "method")
RELATION_KEYS = ("name", "key_token", "key_template", "facts_from", "generate", "names", "subjects_of", "prompts_from")
FORM_KEYS = (
    *(field.path for field in FIELDS),
    *DRAFT_KEYS,
    *(f"relation.{key}" for key in RELATION_KEYS),
    *(f"prompts.{split}" for split in SPLITS),
)
# Choosers refuse what they do not offer, so each shows something also where there is no relation.
CHOSEN_AT_FIRST: dict[str, Any] = {
    "facts_from": "own", "names": "auto", "subjects_of": "", "prompts_from": "own",
}  # fmt: skip


def form_values(draft: Draft, relation_id: str, language: str) -> dict[str, Any]:
    """What every field shows, by the names of FORM_KEYS."""
    values = {**DEFAULTS, **draft["values"], **{key: draft[key] for key in DRAFT_KEYS}}
    relation = find_relation(draft, relation_id)
    empty = dict.fromkeys(RELATION_KEYS, "") | CHOSEN_AT_FIRST
    shown = CHOSEN_AT_FIRST | (relation or empty)  # a draft of an older lab says nothing of names
    values |= {f"relation.{key}": shown[key] for key in RELATION_KEYS}
    if relation is None:
        values["relation.generate"] = None
    prompts = relation["prompts"].get(language, {}) if relation else {}
    return values | {f"prompts.{split}": prompts.get(split, "") for split in SPLITS}


def digest(value: Any) -> str:
    """A few signs that stand for a field's value: the same for what a browser cannot tell apart."""
    if isinstance(value, str):
        value = value.replace("\r\n", "\n").replace("\r", "\n")
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    return blake2s(json.dumps(value or value == 0 or None).encode(), digest_size=6).hexdigest()


def given(draft: Draft, relation_id: str, language: str) -> dict[str, str]:
    """What a tab is given: the digest of every field that it shows."""
    return {key: digest(value) for key, value in form_values(draft, relation_id, language).items()}


def commit(draft: Draft, relation_id: str, language: str, edits: Mapping[str, Any]) -> None:
    """Take over the fields (of FORM_KEYS) that a person changed. `relation_id`, `language`: what they belong to."""
    values = {key: _cut(value) for key, value in edits.items()}
    for field in FIELDS:
        if field.path in values:
            draft["values"][field.path] = values[field.path]
            if field.path not in draft["touched"]:
                draft["touched"].append(field.path)
    draft.update({key: values[key] or "" for key in DRAFT_KEYS if key in values})
    relation = find_relation(draft, relation_id)
    if relation is None:
        return
    leads = {r["name"].strip() for r in draft["relations"]} if relation["prompts_from"] == WITH_REASONING else None
    for key in RELATION_KEYS:
        if f"relation.{key}" in values:
            value = values[f"relation.{key}"]
            relation[key] = value if key == "generate" else value or CHOSEN_AT_FIRST.get(key, "")
    if relation["prompts_from"] == "own" and not relation["prompts"]:
        relation["prompts"] = corpus_prompts(relation["name"].strip(), leads)
    typed = {split: values[f"prompts.{split}"] or "" for split in SPLITS if f"prompts.{split}" in values}
    if typed:
        prompts = relation["prompts"].setdefault(language, dict.fromkeys(SPLITS, ""))
        prompts.update(typed)


def _cut(value: Any) -> Any:
    """A runaway paste into a small field must not fill the database; the checks say long before what is too long.

    Numbers come as fractions, so that 2.5 where a whole number is wanted is refused and not rounded.
    """
    if isinstance(value, float) and value.is_integer() and abs(value) < MAX_WHOLE_NUMBER:
        return int(value)
    return value[:MAX_TYPED_CHARACTERS] if isinstance(value, str) else value


def prompt_languages(draft: Draft, relation_id: str) -> list[str]:
    """The languages that a relation's prompts may be edited in: those it has, then the corpus's."""
    relation = find_relation(draft, relation_id)
    return list(dict.fromkeys([*(relation["prompts"] if relation else ()), *LANGUAGES]))


def language_code(text: Any) -> str | None:
    """A language as it was typed, as a code such as `fr` or `pt-BR`; None when it is none."""
    code = str(text or "").strip()
    known = {name.casefold(): key for key, name in LANGUAGES.items()}
    code = known.get(code.casefold(), code)
    return code if re.fullmatch(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*", code) else None
