"""Whether the options of multiple-choice questions can be said, told apart, and read by the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engine.checks import Problem, shorten
from engine.corpus.sentences import key_prompt, question_text
from engine.evaluation.lost import Lost, last_word, spell
from engine.models.spelling import Ids, Speller
from engine.relation import Fact, Relation

TRIED = 3  # questions that are looked at for the longest one


def option_problems(relation: Relation, asked: Sequence[tuple[int, Fact]], speller: Speller) -> Iterator[Problem]:
    """Of each question's options that are nobody's object: lost ones, and two of one question that are alike."""
    before = last_word(key_prompt(relation), relation.explicit_facts[0].subject)
    sets: list[tuple[int | None, str, tuple[str, ...]]] = [
        (i + 1, "alternatives", (fact.object, *fact.alternatives)) for i, fact in asked if fact.alternatives
    ]
    if len(sets) < len(asked) and relation.options:
        sets.append((None, "options", relation.options))
    unique = list(dict.fromkeys(option for _, _, options in sets for option in options))
    encoded = [tuple(ids) for _, ids in speller.split([(before, option) for option in unique])]
    ids_of = dict(zip(unique, encoded, strict=True))
    said_of = dict(zip(unique, speller.texts(encoded), strict=True))
    objects = {fact.object for fact in relation.explicit_facts}
    for row, column, options in sets:
        first: dict[Ids, str] = {}
        for option in options:
            try:
                if option not in objects:
                    spell(option, ids_of[option], said_of[option], speller)
                other = first.setdefault(ids_of[option], option)
                if other != option and not {option, other} <= objects:
                    raise Lost(f"and ‘{shorten(other)}’ are the same to the model's tokenizer: change one of them")
            except Lost as lost:
                yield Problem(f"‘{shorten(option)}’ {lost}", row, column)


def context_problems(relation: Relation, asked: Sequence[tuple[int, Fact]], speller: Speller) -> Iterator[Problem]:
    """One problem when the longest option does not fit behind the longest question that offers it."""
    if speller.context is None:
        return
    texts = [key_prompt(relation), *(p.text for p in relation.explicit_prompts)]
    longest_prompt = max(texts, key=lambda text: len(text.encode()))
    for index, fact in sorted(asked, key=lambda x: -len(x[1].subject.encode()))[:TRIED]:
        options = fact.alternatives or relation.options
        text = question_text(longest_prompt, fact.subject)
        option = max((fact.object, *options), key=lambda o: len(o.encode()))
        ((prompt, ids),) = speller.split([(text, option)])
        if (length := speller.extra + len(prompt) + len(ids)) > speller.context:
            column = "object" if option == fact.object else "alternatives" if fact.alternatives else "options"
            message = (
                f"‘{shorten(option)}’ has {length} tokens with its longest question, more than the "
                f"{speller.context} that the model reads: shorten one of them"
            )
            yield Problem(message, None if column == "options" else index + 1, column)
            return
