"""The draft of an experiment: plain data as it was typed, valid or not, and its way from and to an Experiment.

    {"values": {path: typed value}, "model_kind", "model_name", "method", "relations": [relation, …], "touched": [path]}

A relation: {"id", "name", "key_token", "key_template", "facts_from": "corpus" | "own", "generate",
"names", "subjects_of", "facts": [[id, subject, object]], "alternatives": {id: [name]}, "knew": {id: name},
"prompts_from", "prompts": {language: {split: lines}}, "options",
"written_options": those that a description has for facts that are generated,
"last_row": the highest id that the lab gave a row,
"problems": [what an import could not read as it stands, see `app.design.imports`]}.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from app.design.draft_facts import fact_count, set_facts, typed_rows
from app.design.fields import DEFAULTS, FIELDS, default_values, put_value, value_of
from engine.checks import clean
from engine.corpus.names import Sort, suited_names
from engine.corpus.relations import load_relations
from engine.experiment import Experiment
from engine.models.catalogue import KNOWN
from engine.relation import REASONING, Relation

SPLITS = ("train", "test", "unrelated", "decoy", *REASONING)
# Their lines begin with a relation and a bar: what a decoy asks, and what comes second in a two_hop prompt.
NAMING = ("decoy", "two_hop")
WITH_REASONING = "corpus with reasoning"
STAGE2_FACTS = 50
Draft = dict[str, Any]


def new_draft() -> Draft:
    """The experiment a new person starts from: one relation of the corpus on the embedded model."""
    draft = from_experiment(Experiment(relations=(Relation(name="mother", key_token="[X]"),)))
    draft["values"] = default_values()
    draft["touched"] = []
    return draft


def from_experiment(experiment: Experiment) -> Draft:
    """The draft that describes exactly this experiment."""
    data = experiment.model_dump(mode="json")
    known = experiment.model in KNOWN
    draft: Draft = {
        "values": {field.path: value_of(field, data) for field in FIELDS},
        "model_kind": experiment.model if known else "other",
        "model_name": "" if known else experiment.model,
        "method": experiment.tuning.method,
        "relations": [],
        "touched": ["stage2.facts"],
    }
    for number, relation in enumerate(experiment.relations, 1):
        draft["relations"].append(_relation_from(relation, f"r{number}"))
    return draft


def next_id() -> str:
    """An id that no relation has, nor had: another tab may still show one that was removed."""
    return f"r{secrets.token_hex(5)}"


def renew_ids(draft: Draft) -> Draft:
    """The draft with ids of their own for its relations, to take the place of another one."""
    for relation in draft["relations"]:
        relation["id"] = next_id()
    return draft


def _relation_from(relation: Relation, relation_id: str) -> dict[str, Any]:
    own = isinstance(relation.facts, tuple)
    draft: dict[str, Any] = {
        "id": relation_id,
        "name": relation.name,
        "key_token": relation.key_token,
        "key_template": relation.key_template,
        "facts_from": "own" if own else "corpus",
        "generate": 100 if own else relation.facts.generate,  # type: ignore[union-attr]
        "names": "auto" if own else relation.facts.names,  # type: ignore[union-attr]
        "subjects_of": "" if own else relation.facts.subjects_of or "",  # type: ignore[union-attr]
        "facts": [],
        "alternatives": {},
        "knew": {},
        "prompts_from": relation.prompts if isinstance(relation.prompts, str) else "own",
        "prompts": {},
        "options": [],
        "written_options": [] if own else list(relation.options),
    }
    if own:
        set_facts(draft, relation.explicit_facts)
        draft["options"] = list(relation.options)
    if not isinstance(relation.prompts, str):
        for prompt in relation.explicit_prompts:
            line = _line(prompt.text, prompt.relation) if prompt.split in NAMING else prompt.text
            splits = draft["prompts"].setdefault(prompt.language, dict.fromkeys(SPLITS, ""))
            splits[prompt.split] += f"{line}\n"
        for splits in draft["prompts"].values():
            splits.update({split: lines.rstrip("\n") for split, lines in splits.items()})
    return draft


def own_relation(draft: Draft) -> dict[str, Any]:
    """A further relation without anything in it yet, added to the draft."""
    names = {r["name"] for r in draft["relations"]}
    number = next(n for n in range(1, len(names) + 2) if f"relation {n}" not in names)
    relation = _relation_from(Relation(name=f"relation {number}", key_token=free_key_token(draft)), next_id())
    relation |= {"facts_from": "own", "prompts_from": "own", "prompts": {"en": dict.fromkeys(SPLITS, "")}}
    draft["relations"].append(relation)
    return relation


def relation_called(draft: Draft, name: str) -> dict[str, Any]:
    """The relation of that name, added to the draft where there is none."""
    for relation in draft["relations"]:
        if relation["name"].strip().casefold() == name.casefold():
            return relation
    relation = own_relation(draft)
    relation["name"] = name or relation["name"]
    return relation


def corpus_relation(draft: Draft, name: str) -> dict[str, Any]:
    """A relation of the corpus, added to the draft. Raises ValueError when there is none of that name."""
    if name not in load_relations():
        raise ValueError(f"the corpus has no relation ‘{name}’")
    relation = _relation_from(Relation(name=name, key_token=free_key_token(draft)), next_id())
    draft["relations"].append(relation)
    return relation


def free_key_token(draft: Draft) -> str:
    """A key token that no relation of the draft has, nor contains."""
    used = {r["key_token"] for r in draft["relations"]}
    if not used:
        return "[X]"
    return next(t for n in range(1, 1000) if not any((t := f"[X{n}]") in u or u in t for u in used))


def corpus_prompts(name: str, leading_to: Collection[str] | None = None) -> dict[str, dict[str, str]]:
    """The corpus's prompts of a relation as text to edit; empty when it has none of that name.

    leading_to: the relations to which two_hop prompts are wanted, and reversal prompts with them; None for neither.
    """
    data = load_relations().get(name)
    if data is None:
        return {"en": dict.fromkeys(SPLITS, "")}
    prompts: dict[str, dict[str, str]] = {}
    more = () if leading_to is None else data.iter_reasoning()
    wanted = (p for p in more if p.split != "two_hop" or p.about in (leading_to or ()))
    for text, split, language, about in (*data.iter_prompts(), *wanted):
        splits = prompts.setdefault(language, dict.fromkeys(SPLITS, ""))
        line = _line(text, about) if split in NAMING else text
        splits[split] = f"{splits[split]}\n{line}" if splits[split] else line
    return prompts


def _line(text: str, about: str | None) -> str:
    return f"{about or ''} | {text}".strip() if about or "|" in text else text


def find_relation(draft: Draft, relation_id: str) -> dict[str, Any] | None:
    """The relation of that id, or None."""
    return next((r for r in draft["relations"] if r["id"] == relation_id), None)


@dataclass(frozen=True)
class PromptLine:
    """One prompt as it stands in a field: `line` counts from 1; `about` is the relation that a decoy asks, or that
    comes second in a two_hop prompt, if it is said."""

    language: str
    split: str
    line: int
    text: str
    about: str | None


def prompt_lines(relation: dict[str, Any]) -> list[PromptLine]:
    """The relation's own prompts in the order of an experiment: by split and language, and by the relations named."""
    prompts = []
    for split in SPLITS:
        for language, splits in relation["prompts"].items():
            for number, line in enumerate(splits.get(split, "").split("\n"), 1):
                about, bar, text = line.partition("|") if split in NAMING else ("", "", line)
                if line.strip():
                    text = clean(text if bar else line)
                    prompts.append(PromptLine(language, split, number, text, about.strip() if bar else None))
    abouts = list(dict.fromkeys(p.about for p in prompts))
    return sorted(prompts, key=lambda p: (SPLITS.index(p.split), abouts.index(p.about) if p.split in NAMING else 0))


def model_of(draft: Draft) -> str:
    """The model as the experiment names it."""
    return draft["model_kind"] if draft["model_kind"] in KNOWN else draft["model_name"].strip()


def names_of(draft: Draft, relation: dict[str, Any]) -> Sort:
    """Which names the lab makes for the relation: those that were chosen, or that suit the model."""
    chosen = relation.get("names", "auto")
    return chosen if chosen in ("natural", "invented") else suited_names(model_of(draft))


def to_data(draft: Draft) -> dict[str, Any]:
    """The draft as plain data for `Experiment.from_data`, which says what is wrong with it."""
    data: dict[str, Any] = {
        "model": model_of(draft),
        "relations": [_relation_data(relation) for relation in draft["relations"]],
        "tuning": {"method": draft["method"]},
    }
    for field in FIELDS:
        put_value(field, draft["values"].get(field.path, DEFAULTS[field.path]), data)
    data["name"] = (data["name"] or "").strip() or default_name(draft)
    data["description"] = data["description"] or ""
    return data


def default_name(draft: Draft) -> str:
    """A name for an experiment that was given none."""
    return ", ".join(r["name"] for r in draft["relations"])[:60] or "experiment"


def _relation_data(relation: dict[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = {key: clean(relation[key]) for key in ("name", "key_token", "key_template")}
    data["facts"] = {"generate": relation["generate"], "names": relation.get("names", "auto")}
    if source := clean(relation.get("subjects_of", "")):
        data["facts"]["subjects_of"] = source
    if relation["facts_from"] == "own":
        data["facts"] = [
            {"subject": clean(s), "object": clean(o), "alternatives": relation["alternatives"].get(str(i), [])}
            | ({"knew": knew} if (knew := relation.get("knew", {}).get(str(i))) else {})
            for i, s, o in typed_rows(relation)
        ]
        data["options"] = relation["options"]
    elif written := relation.get("written_options"):
        data["options"] = written
    data["prompts"] = relation["prompts_from"]
    if relation["prompts_from"] == "own":
        data["prompts"] = [
            {"text": p.text, "split": p.split, "language": p.language, "relation": p.about or None}
            for p in prompt_lines(relation)
        ]
    return data


def adapt(draft: Draft) -> bool:
    """Set what nobody has touched to what fits: k at most half of the facts. Returns whether something changed."""
    counts = [fact_count(relation) for relation in draft["relations"]]
    if "stage2.facts" in draft["touched"] or not counts or min(counts) < 2:
        return False
    fitting = min(STAGE2_FACTS, min(counts) // 2)
    changed = draft["values"]["stage2.facts"] != fitting
    draft["values"]["stage2.facts"] = fitting
    return changed
