"""Between the page's fields and the draft: what each field shows, and what was typed into it.

Every handler hands over all fields at once, with the relation and language they belong to, so that nothing typed
gets lost or into the wrong relation, however fast somebody clicks on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from app.design.draft import SPLITS, Draft, corpus_prompts, find_relation
from app.design.fields import FIELDS
from engine.corpus.relations import LANGUAGES

MAX_TYPED_CHARACTERS = 200_000
DRAFT_KEYS = ("model_kind", "model_name", "method")
RELATION_KEYS = ("name", "key_token", "key_template", "facts_from", "generate", "prompts_from")
FORM_KEYS = (
    *(field.path for field in FIELDS),
    *DRAFT_KEYS,
    *(f"relation.{key}" for key in RELATION_KEYS),
    *(f"prompts.{split}" for split in SPLITS),
)


def form_values(draft: Draft, relation_id: str, language: str) -> dict[str, Any]:
    """What every field shows, by the names of FORM_KEYS."""
    values = {**draft["values"], **{key: draft[key] for key in DRAFT_KEYS}}
    relation = find_relation(draft, relation_id)
    empty: dict[str, Any] = dict.fromkeys(RELATION_KEYS, "") | {"facts_from": "own", "prompts_from": "own"}
    values |= {f"relation.{key}": (relation or empty)[key] for key in RELATION_KEYS}
    if relation is None:
        values["relation.generate"] = None
    prompts = relation["prompts"].get(language, {}) if relation else {}
    return values | {f"prompts.{split}": prompts.get(split, "") for split in SPLITS}


def commit(draft: Draft, relation_id: str, language: str, typed: Sequence[Any], stamp: float) -> bool:
    """Take over what the fields hold (in the order of FORM_KEYS); returns whether that changed the draft.

    `relation_id`, `language`: what they belong to. `stamp`: when the browser read them. Requests overtake each other,
    so that what is older than what was taken over already is left alone.
    """
    if not language or len(typed) != len(FORM_KEYS) or stamp < draft.get("stamp", 0):
        return False
    draft["stamp"] = stamp
    values = {key: _cut(value) for key, value in zip(FORM_KEYS, typed, strict=True)}
    changed = False
    for field in FIELDS:
        if values[field.path] != draft["values"].get(field.path):
            draft["values"][field.path] = values[field.path]
            changed = True
            if field.path not in draft["touched"]:
                draft["touched"].append(field.path)
    changed |= _put(draft, {key: values[key] or "" for key in DRAFT_KEYS})
    relation = find_relation(draft, relation_id)
    if relation is None:
        return changed
    new = {key: values[f"relation.{key}"] for key in RELATION_KEYS}
    changed |= _put(relation, {key: value if key == "generate" else value or "" for key, value in new.items()})
    if relation["prompts_from"] == "own" and not relation["prompts"]:
        relation["prompts"] = corpus_prompts(relation["name"].strip())
        return True
    typed_prompts = {split: values[f"prompts.{split}"] or "" for split in SPLITS}
    if language and (any(typed_prompts.values()) or language in relation["prompts"]):
        changed |= _put(relation["prompts"], {language: typed_prompts})
    return changed


def _put(target: dict[str, Any], new: dict[str, Any]) -> bool:
    """Update the mapping; returns whether it differs afterwards."""
    changed = any(target.get(key) != value for key, value in new.items())
    target.update(new)
    return changed


def _cut(value: Any) -> Any:
    """A runaway paste into a small field must not fill the database; the checks say long before what is too long."""
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
