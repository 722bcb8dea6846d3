"""Whether a model can say what it is asked for: every object encoded and decoded as answers are, before a run.

    problems = check_experiment(experiment)            # {relation: [Problem, …]}, with the tokenizer on this machine
    refuse_unsayable(experiment, speller)              # the same with a loaded model's own; raises ValueError

What the tokenizer only writes in another way (small letters, no accents, spaces between Chinese signs) is a remark:
the hit rule accepts that spelling too. What is lost (unknown signs, special tokens, two names alike, an object longer
than answers are decoded) is an error: its questions could not be hit, or not be told apart. Knows no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from engine.chains import turned
from engine.checks import Problem, contained_pairs, normalise, refuse, shorten
from engine.corpus.sentences import key_prompt, question_text
from engine.evaluation.hits import is_hit
from engine.evaluation.lost import Lost, alike_problem, last_word, spell
from engine.evaluation.questions import choice_facts
from engine.evaluation.sayable_options import context_problems, option_problems
from engine.experiment import Experiment
from engine.models.around import Around
from engine.models.files import known_around, tokenizer_file
from engine.models.spelling import Ids, Speller, file_speller
from engine.relation import Fact, Relation
from engine.settings import Stage1, Tuning

_SPECIAL = re.compile(r"<\|[^<>|]*\|>|</?s>|<(unk|pad|bos|eos|mask)>|\[(UNK|PAD|CLS|SEP|MASK|BOS|EOS)\]")


def check_experiment(experiment: Experiment, max_new_tokens: int | None = None) -> dict[str, list[Problem]]:
    """Problems by relation of a resolved experiment, with the tokenizer on this machine; none where it is elsewhere.

    `max_new_tokens`: how far answers are decoded, where that is not the evaluation's own setting.
    """
    file = tokenizer_file(experiment.model)
    if file is None:
        return {}
    try:
        changed, beside = file.stat().st_mtime_ns, file.with_name("tokenizer_config.json")
        changed += beside.stat().st_mtime_ns if beside.exists() else 0
        around = known_around(experiment.model, experiment.model_text)
        found = _check_with(file, changed, _without_training(experiment), max_new_tokens, around)
    except (OSError, ValueError):  # said of the model already
        return {}
    return {name: list(problems) for name, problems in found.items()}


# The page looks at an experiment with every field that is typed, and mostly at the same facts.
@lru_cache(maxsize=8)
def _check_with(
    file: Path, changed: int, experiment: Experiment, max_new_tokens: int | None, around: Around
) -> dict[str, tuple[Problem, ...]]:
    speller = file_speller(file, list(experiment.key_tokens), around)
    return {
        relation.name: tuple(check_relation(experiment, relation, speller, max_new_tokens))
        for relation in experiment.relations
    }


def _without_training(experiment: Experiment) -> Experiment:
    """The experiment with what does not matter here set aside, so that it is the same one when that is changed."""
    plain = {"name": "experiment", "description": "", "model": "embedded", "tuning": Tuning(), "stage1": Stage1()}
    return experiment.model_copy(update=plain)


def refuse_unsayable(experiment: Experiment, speller: Speller, max_new_tokens: int | None = None) -> None:
    """Raises ValueError with what cannot be said or told apart, if there is any."""
    for relation in experiment.relations:
        refuse(check_relation(experiment, relation, speller, max_new_tokens), f"relation ‘{relation.name}’: ")


def refuse_known(experiment: Experiment, max_new_tokens: int | None = None) -> list[str]:
    """`refuse_unsayable` with the tokenizer on this machine, if it is there; returns the remarks, a sentence each."""
    remarks = []
    for name, problems in check_experiment(experiment, max_new_tokens).items():
        refuse(problems, f"relation ‘{name}’: ")
        remarks += [f"relation ‘{name}’: {problem}" for problem in problems]
    return remarks


def check_relation(
    experiment: Experiment, relation: Relation, speller: Speller, max_new_tokens: int | None = None
) -> list[Problem]:
    """Problems of one relation of a resolved experiment; rows are its facts, counted from 1."""
    limit = max_new_tokens or experiment.evaluation.max_new_tokens
    asked = [(index, relation.explicit_facts[index]) for index in sorted(choice_facts(experiment, relation))]
    return [
        *_object_problems(relation, speller, limit),
        *_subject_problems(relation, speller),
        *_turned_problems(relation, speller, limit),
        *_prompt_problems(relation, speller),
        *option_problems(relation, asked, speller),
        *context_problems(relation, asked, speller),
        *_foreign_tokens(relation, speller),
    ]


def _foreign_tokens(relation: Relation, speller: Speller) -> Iterator[Problem]:
    """Texts that spell another model's special token, which to this one is text: left there by mistake, probably."""
    cells = [(row, c, getattr(f, c)) for row, f in enumerate(relation.explicit_facts, 1) for c in ("subject", "object")]
    for row, column, text in [*cells, *((None, "prompt", p.text) for p in relation.explicit_prompts)]:
        if (found := _SPECIAL.search(text)) and speller.special.isdisjoint(speller.split([("", text)])[0][1]):
            message = (
                f"‘{shorten(text)}’ holds ‘{found[0]}’, a special token of some models: remove it if it is left over"
            )
            yield Problem(message, row, column, "warning")


def _object_problems(relation: Relation, speller: Speller, limit: int) -> Iterator[Problem]:
    facts = relation.explicit_facts
    endings = _endings(relation)
    pairs = {(last_word(text, fact.subject), fact.object): () for fact in facts for text in endings}
    encoded = dict(zip(pairs, (tuple(ids) for _, ids in speller.split(list(pairs))), strict=True))
    unique = list(dict.fromkeys(encoded.values()))
    texts = dict(zip(unique, speller.texts(unique), strict=True))
    spelt: dict[str, set[str]] = {}
    owners: dict[Ids, int] = {}
    remarks: list[tuple[int, str, str]] = []
    lengths: dict[int, int] = {}
    alike: set[str] = set()
    for row, fact in enumerate(facts, 1):
        for ids in dict.fromkeys(encoded[last_word(text, fact.subject), fact.object] for text in endings):
            try:
                said = spell(fact.object, ids, texts[ids], speller)
            except Lost as lost:
                yield Problem(f"‘{shorten(fact.object)}’ {lost}", row, "object")
                break
            name = normalise(fact.object)
            first = owners.setdefault(ids, row)
            if normalise(facts[first - 1].object) != name:
                yield alike_problem(fact.object, facts[first - 1].object, row, first, "object")
                alike.add(name)
                break
            if not is_hit(said, fact.object):
                if name not in spelt:
                    remarks.append((row, fact.object, said))
                spelt.setdefault(name, set()).add(normalise(said))
            if len(ids) > limit and not is_hit(speller.texts([ids[:limit]])[0], fact.object, said):
                lengths[row] = max(lengths.get(row, 0), len(ids))
    yield from _confusable(facts, spelt, alike)
    for row, length in lengths.items():
        yield Problem(
            f"‘{shorten(facts[row - 1].object)}’ has {length} tokens, and answers are decoded for {limit}: set "
            f"max_new_tokens to {max(lengths.values())} or more, or shorten it", row, "object",
        )  # fmt: skip
    if remarks:
        row, text, said = remarks[0]
        more = f" (and {len(remarks) - 1:,} more objects in ways of their own)" if len(remarks) > 1 else ""
        message = (
            f"the model's tokenizer writes ‘{shorten(text)}’ as ‘{shorten(said)}’{more}: an answer so written counts "
            "as a hit"
        )
        yield Problem(message, row, "object", "warning")


def _turned_problems(relation: Relation, speller: Speller, limit: int) -> Iterator[Problem]:
    """The same of subjects, where they are what reversal prompts ask for."""
    prompts = tuple(p for p in relation.explicit_prompts if p.split == "reversal")
    if not prompts:
        return
    facts = turned(relation.explicit_facts)
    places = list(facts)
    other_way = relation.model_copy(update={"facts": tuple(facts.values()), "prompts": prompts})
    for problem in _object_problems(other_way, speller, limit):
        row = places[problem.row - 1] + 1 if problem.row else None
        yield replace(problem, row=row, column="subject")


def _confusable(facts: Sequence[Fact], spelt: dict[str, set[str]], alike: set[str]) -> Iterator[Problem]:
    """Objects that the tokenizer writes as another one, or as a part of another one.

    spelt: how it writes them, where that is another way, by the normalised object; alike: those that are said already.
    """
    if not spelt:
        return
    rows: dict[str, int] = {}
    for row, fact in enumerate(facts, 1):
        rows.setdefault(normalise(fact.object), row)
    owner: dict[str, str] = {}
    for name in rows.keys() - alike:
        for form in (name, *spelt.get(name, ())):
            if owner.setdefault(form, name) != name:
                first, second = sorted((rows[owner[form]], rows[name]))
                yield alike_problem(facts[second - 1].object, facts[first - 1].object, second, first, "object")
    for longer, shorter in contained_pairs(owner):
        name, other = owner[longer], owner[shorter]
        if name != other and other not in name:  # those that contain each other as typed are said already
            text, part = facts[rows[name] - 1].object, facts[rows[other] - 1].object
            message = (
                f"‘{shorten(text)}’ contains ‘{shorten(part)}’ of row {rows[other]} as the model's tokenizer writes "
                "them: an answer with one would count for both, so change one of them"
            )
            yield Problem(message, rows[name], "object")


def _subject_problems(relation: Relation, speller: Speller) -> Iterator[Problem]:
    subjects = [fact.subject for fact in relation.explicit_facts]
    owners: dict[Ids, int] = {}
    for row, (subject, (_, ids)) in enumerate(
        zip(subjects, speller.split([("", s) for s in subjects]), strict=True), 1
    ):
        text = f"‘{shorten(subject)}’"
        if not ids or speller.special.intersection(ids):
            try:
                spell(subject, ids, "", speller)
            except Lost as lost:
                yield Problem(f"{text} {lost}", row, "subject")
        elif (first := owners.setdefault(tuple(ids), row)) != row:
            yield alike_problem(subject, subjects[first - 1], row, first, "subject")
        elif speller.unknown.intersection(ids):
            message = f"{text} holds signs that the model's tokenizer does not know, so the model reads less of it"
            yield Problem(message, row, "subject", "warning")


def _prompt_problems(relation: Relation, speller: Speller) -> Iterator[Problem]:
    names = [fact.subject for fact in relation.explicit_facts]
    bad = speller.special | speller.unknown
    plain = (
        n for n, (_, ids) in zip(names, speller.split([("", n) for n in names]), strict=True) if bad.isdisjoint(ids)
    )
    name = next(plain, names[0])
    asked = [("key sequence", key_prompt(relation), "")]
    asked += [("prompt", p.text, p.language) for p in relation.explicit_prompts]
    seen: dict[tuple[Ids, str], str] = {}
    split = speller.split([(question_text(text, name), name) for _, text, _ in asked])
    for (column, text, language), (ids, _) in zip(asked, split, strict=True):
        quoted = f"‘{shorten(text)}’"
        if special := [i for i in ids if i in speller.special]:
            signs = speller.texts([(special[0],)])[0]
            yield Problem(
                f"{quoted} holds ‘{signs}’, a special token of the model's tokenizer: remove it", None, column
            )
        elif (first := seen.setdefault((tuple(ids), language), text)) != text:
            message = f"{quoted} is the same as ‘{shorten(first)}’ to the model's tokenizer: reword or remove it"
            yield Problem(message, None, column)
        elif speller.unknown.intersection(ids):
            message = f"{quoted} holds signs that the model's tokenizer does not know: the model reads less of it"
            yield Problem(message, None, column, "warning")


def _endings(relation: Relation) -> list[str]:
    """The key prompt, and a prompt for each sign that one ends with: on it depends how a tokenizer cuts the object."""
    texts = {text[-1]: text for text in reversed([p.text for p in relation.explicit_prompts])}
    return [key_prompt(relation), *texts.values()]
