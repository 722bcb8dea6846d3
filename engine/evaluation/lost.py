"""What a tokenizer loses of a name, and in which words that is said."""

from __future__ import annotations

from collections.abc import Sequence

from engine.checks import Problem, normalise, shorten
from engine.corpus.sentences import question_text
from engine.evaluation.hits import is_hit, letters
from engine.models.spelling import Speller

NAMED = 3  # signs in one sentence


class Lost(Exception):
    """Why a text cannot be said; the words follow the text in a sentence."""


def spell(text: str, ids: Sequence[int], said: str, speller: Speller) -> str:
    """How the tokenizer writes the text. Raises Lost when it loses some of it."""
    if speller.special.intersection(ids):
        signs = " and ".join(f"‘{t}’" for t in speller.texts([(i,) for i in ids if i in speller.special][:NAMED]))
        raise Lost(f"holds {signs}, which the model reads as a special token, not as text: remove it")
    if not ids:
        raise Lost("has no tokens in the model's tokenizer: rename it, or choose another model")
    if speller.unknown.intersection(ids):
        words = [w for w in text.split() if speller.unknown.intersection(speller.split([("", w)])[0][1])]
        named = f"‘{shorten(words[0])}’, which " if words and words[0] != text else "signs that "
        raise Lost(f"holds {named}the model's tokenizer does not know: rename it, or choose another model")
    if not is_hit(said, text) and (letters(said) != letters(text) or not normalise(said)):
        raise Lost(f"becomes {f'‘{shorten(said)}’' if said else 'nothing'} in the model's tokenizer: rename it")
    return said


def alike_problem(text: str, other: str, row: int, first: int, column: str) -> Problem:
    """That a name is to the tokenizer what another one, of row `first`, is."""
    message = (
        f"‘{shorten(text)}’ and ‘{shorten(other)}’ of row {first} are the same to the model's tokenizer, "
        "so they cannot be told apart: change one of them"
    )
    return Problem(message, row, column)


def last_word(prompt: str, subject: str) -> str:
    """The last word of a prompt about a subject. What stands before it never changes how an object is cut."""
    return question_text(prompt, subject).rsplit(" ", 1)[-1]
