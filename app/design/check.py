"""What is wrong with a draft, each thing with the part of the page it belongs to and words for a person."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from app.design.draft import Draft, prompt_lines, to_data
from app.design.draft_facts import typed_rows
from app.design.fields import BY_PATH, SAMPLES
from app.design.imports import shown_problems
from app.design.text import split_otherwise
from app.shared.words import language_name, split_name
from engine import checks
from engine.checks import Problem
from engine.choices import check_alternatives
from engine.corpus.relations import load_relations
from engine.corpus.resolve import resolve
from engine.evaluation.sayable import check_experiment
from engine.experiment import Experiment
from engine.models.files import located, model_problems, text_problems, tokenizer_file, tokenizer_problems
from engine.relation import SECOND_MISSING
from engine.settings import ModelText

# Where the page shows what a tokenizer does to a column; all others stand in the table of facts.
PARTS = {"prompt": "prompts", "options": "relation", "key sequence": "relation"}

SHOWN_ROWS = 4


@dataclass(frozen=True)
class Finding:
    """A problem and its place: `model`, `stage1`, `stage2`, `evaluation`, `relations`, or `ID/relation`, `ID/facts`,
    `ID/import`, `ID/prompts` for the relation of that id. `where` is the place in words."""

    place: str
    where: str
    problem: Problem


@dataclass(frozen=True)
class Examination:
    """All findings, and the experiment (as described, and written out) when nothing stands in its way."""

    findings: tuple[Finding, ...]
    experiment: Experiment | None = None
    resolved: Experiment | None = None

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What must be mended before the start."""
        return tuple(f for f in self.findings if f.problem.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What may be meant."""
        return tuple(f for f in self.findings if f.problem.severity == "warning")

    def at(self, place: str) -> tuple[Problem, ...]:
        """The problems of one place."""
        return tuple(f.problem for f in self.found(place))

    def found(self, place: str) -> tuple[Finding, ...]:
        """The findings of one place."""
        return tuple(f for f in self.findings if f.place == place)


@dataclass(frozen=True)
class Group:
    """Findings that say the same of several rows: those rows in words, empty where it is about no row."""

    where: str
    problem: Problem
    rows: str = ""


def grouped(findings: Sequence[Finding]) -> list[Group]:
    """The findings, with those that say the same of one place put together."""
    rows: dict[tuple[str, str | None, str], list[int]] = {}
    first: dict[tuple[str, str | None, str], Finding] = {}
    for finding in findings:
        key = (finding.where, finding.problem.column, finding.problem.message)
        first.setdefault(key, finding)
        rows.setdefault(key, []).extend([finding.problem.row] if finding.problem.row else [])
    return [Group(f.where, f.problem, _rows_in_words(rows[key])) for key, f in first.items()]


def _rows_in_words(rows: Sequence[int]) -> str:
    if len(rows) < 2:
        return f"row {rows[0]}" if rows else ""
    named = ", ".join(f"{row:,}" for row in rows[:SHOWN_ROWS])
    rest = len(rows) - SHOWN_ROWS
    return f"rows {named} and {rest:,} more" if rest > 0 else f"rows {named}"


def examine(draft: Draft) -> Examination:
    """Check everything: first what can be said about single cells, then the experiment as a whole."""
    findings = list(_model_findings(draft))
    if not draft["relations"]:
        findings.append(Finding("relations", "Relations", Problem("there is no relation yet: add one")))
    for relation in draft["relations"]:
        findings += _relation_findings(relation)
    early = {f.place for f in findings if f.problem.severity == "error"}
    experiment = resolved = None
    try:
        experiment = Experiment.model_validate(to_data(draft))
        resolved = None if early else located(resolve(experiment))
    except ValidationError as error:
        findings += _validation_findings(error, draft, early)
    except ValueError as error:
        findings.append(_resolving_finding(str(error), draft))
    if resolved:
        said = [*_answer_findings(resolved, draft), *_sample_findings(resolved)]
        if message := split_otherwise(resolved):
            said.append(Finding("model", "Names", Problem(message, severity="warning")))
        findings += said
        resolved = None if any(f.problem.severity == "error" for f in said) else resolved
    return Examination(tuple(findings), experiment if resolved else None, resolved)


def _answer_findings(resolved: Experiment, draft: Draft) -> Iterator[Finding]:
    """What the model's tokenizer could not say, or tell apart."""
    found = check_experiment(resolved)
    for relation, checked in zip(draft["relations"], resolved.relations, strict=True):
        for problem in found.get(checked.name, ()):
            part = PARTS.get(problem.column or "", "facts")
            where = relation["name"] if part == "relation" else f"{relation['name']}, {part}"
            yield Finding(f"{relation['id']}/{part}", where, problem)


def _sample_findings(resolved: Experiment) -> Iterator[Finding]:
    """A multiple choice of more than is asked at all."""
    asked, choice = resolved.evaluation, resolved.evaluation.choice
    for what, least, most in (("facts", asked.facts, choice.facts), ("prompts", asked.prompts, choice.prompts)):
        if isinstance(least, int) and isinstance(most, int) and least < most:
            message = f"is of {most:,} {what}, and {least:,} are asked at all: it will be of these"
            yield Finding("evaluation", "Multiple choice", Problem(message, severity="warning"))


def _model_findings(draft: Draft) -> Iterator[Finding]:
    data = to_data({**draft, "relations": []})
    for problem in model_problems(data["model"]):
        yield Finding("model", "Model", Problem(problem.message, severity=problem.severity))
    file = tokenizer_file(data["model"])
    if file is None:
        return
    with suppress(ValidationError):  # said of its field
        for problem in text_problems(data["model"], ModelText.model_validate(data["model_text"])):
            yield Finding("model", "Model", Problem(problem.message))
    for relation in draft["relations"]:
        kept = data.get("key_token_rows") == "as they are"
        for problem in tokenizer_problems(file, [relation["key_token"].strip()], kept=kept):
            yield Finding(f"{relation['id']}/relation", relation["name"], problem)


def _relation_findings(relation: dict[str, Any]) -> Iterator[Finding]:
    here, name = relation["id"], checks.shorten(relation["name"]) or "unnamed relation"
    texts: list[str] = []
    if relation["facts_from"] == "own":
        pairs = [(checks.clean(subject), checks.clean(object_)) for _, subject, object_ in typed_rows(relation)]
        for problem in _read_otherwise(relation):
            yield Finding(f"{here}/facts", f"{name}, facts", problem)
        texts += [cell for pair in pairs for cell in pair]
        alternatives = [relation["alternatives"].get(str(row[0]), ()) for row in typed_rows(relation)]
        objects = [object_ for _, object_ in pairs]
        offered = check_alternatives(list(zip(objects, alternatives, strict=True)))
        for problem in (*checks.check_facts(pairs), *offered):
            yield Finding(f"{here}/facts", f"{name}, facts", problem)
        for problem in shown_problems(relation):
            yield Finding(f"{here}/import", f"{name}, facts", problem)
    if relation["prompts_from"] == "own":
        lines = prompt_lines(relation)
        places = [f"{language_name(p.language)}, {split_name(p.split)}, line {p.line}" for p in lines]
        texts += [p.text for p in lines]
        for problem in checks.check_prompts([(p.text, p.split, p.language) for p in lines], places):
            yield Finding(f"{here}/prompts", f"{name}, prompts", problem)
        for line, place in zip(lines, places, strict=True):
            if line.split == "two_hop" and not line.about:
                message = f"‘{checks.shorten(line.text)}’ {SECOND_MISSING}, and a bar before the prompt"
                yield Finding(f"{here}/prompts", f"{name}, prompts", Problem(message, None, place))
        for split, missing in (("test", "phrasings"), ("unrelated", "leaks into unrelated prompts")):
            if not any(p.split == split for p in lines):
                message = f"there are no {split} prompts, so {missing} will not be tested"
                yield Finding(f"{here}/prompts", f"{name}, prompts", Problem(message, severity="warning"))
    for problem in checks.check_key_token(checks.clean(relation["key_token"]), texts):
        yield Finding(f"{here}/relation", name, problem)
    left_to_corpus = [k for k in ("facts", "prompts") if relation[f"{k}_from"] != "own"]
    if left_to_corpus and relation["name"].strip() not in load_relations():
        message = f"the corpus has no relation of this name: choose “my own” for its {' and '.join(left_to_corpus)}"
        yield Finding(f"{here}/relation", name, Problem(message, None, "name"))


def _read_otherwise(relation: dict[str, Any]) -> Iterator[Problem]:
    """Cells that are read with other spaces or accents than were typed; spaces around them nobody means."""
    for row, (_, *cells) in enumerate(typed_rows(relation), 1):
        for column, cell in zip(("subject", "object"), cells, strict=True):
            if (read := checks.clean(cell)) != cell.strip():
                message = f"‘{checks.shorten(cell.strip())}’ is read as ‘{checks.shorten(read)}’"
                yield Problem(message, row, column, "warning")


def _validation_findings(error: ValidationError, draft: Draft, early: set[str]) -> Iterator[Finding]:
    seen: set[tuple[str, str]] = set()
    for item in error.errors(include_url=False):
        finding = _validation_finding(item, draft, early)
        if finding and (finding.place, finding.problem.column or finding.problem.message) not in seen:
            seen.add((finding.place, finding.problem.column or finding.problem.message))
            yield finding


def _validation_finding(item: Any, draft: Draft, early: set[str]) -> Finding | None:
    location, message = item["loc"], item["msg"].removeprefix("Value error, ")
    if location == ("relations",):
        return None  # pydantic counts relations with errors as missing; that there is none at all is said early
    if len(location) >= 2 and location[0] == "relations":
        relation = draft["relations"][location[1]]
        place = f"{relation['id']}/relation"
        if item["type"] == "value_error":
            # What the early checks found is said already; what they do not look at is the template.
            template = re.search(r"key_template: ([^;]+)", message)
            if template is None and any(p.startswith(f"{relation['id']}/") for p in early):
                return None
            problem = Problem(template[1], None, "key sequence") if template else Problem(message)
            return Finding(place, relation["name"], problem)
        column = str(location[2]).replace("_", " ")
        if location[2] == "facts":
            if any(part in ("generate", "names", "subjects_of") for part in location):
                return Finding(f"{relation['id']}/facts", f"{relation['name']}, facts", Problem(_plain(item)))
            # What is said of facts as a list means nothing where the lab invents them.
            if relation["facts_from"] == "corpus":
                return None
            return None if f"{relation['id']}/facts" in early else Finding(place, relation["name"], Problem(message))
        return Finding(place, relation["name"], Problem(_plain(item), None, column))
    for end in range(len(location), 0, -1):
        path = ".".join(str(part) for part in location[:end])
        if path in BY_PATH:
            field = BY_PATH[path]
            return Finding(field.section, field.label, Problem(_plain(item), None, field.label))
    if location:
        place = str(location[0])
        return None if place in early else Finding(place, place.capitalize(), Problem(_plain(item)))
    return _finding_of_all(message)


def _finding_of_all(message: str) -> Finding:
    """Where a sentence about the experiment as a whole belongs."""
    if message.startswith("stage1"):
        return Finding("stage1", "Stage 1", Problem(message))
    if message.startswith(("stage 2", "stage2")):
        return Finding("stage2", "Stage 2", Problem(message))
    if message.startswith("evaluation"):
        return Finding("evaluation", "Evaluation", Problem(message))
    return Finding("relations", "Relations", Problem(message))


def _plain(item: Any) -> str:
    """A pydantic error as a sentence's end: what the value must be."""
    kind, limits = item["type"], item.get("ctx", {})
    if item.get("input") in (None, ""):
        return "is empty: fill it in"
    if word := next((w for path, w in SAMPLES.items() if ".".join(map(str, item["loc"])).startswith(path)), ""):
        return f"must be a whole number or {word}"
    sentences = {
        "greater_than_equal": "must be at least {ge}",
        "greater_than": "must be more than {gt}",
        "less_than_equal": "must be at most {le}",
        "less_than": "must be less than {lt}",
        "string_too_long": "is longer than {max_length} characters: shorten it",
        "string_pattern_mismatch": "holds a sign that is not allowed here, such as < > / or a line break",
        "int_parsing": "must be whole numbers, with commas between them",
        "int_type": "must be a whole number",
        "int_from_float": "must be a whole number",
        "finite_number": "must be a number that is not endless",
    }
    if kind in sentences:
        return sentences[kind].format(**limits)
    return item["msg"].removeprefix("Value error, ").replace("Input should be", "must be")


def _resolving_finding(message: str, draft: Draft) -> Finding:
    """Where a sentence of `engine.corpus.resolve` belongs."""
    if place := re.match(r"relations\.(\d+)[^:]*: ", message):
        relation = draft["relations"][int(place[1])]
        return Finding(f"{relation['id']}/relation", relation["name"], Problem(message[place.end() :]))
    if message.startswith(("stage 2", "stage1", "stage2", "evaluation")):
        return _finding_of_all(message)
    for relation in draft["relations"]:
        if f"'{relation['name']}'" in message or f"‘{relation['name']}’" in message:
            return Finding(f"{relation['id']}/facts", f"{relation['name']}, facts", Problem(message))
    return Finding("relations", "Relations", Problem(message))
