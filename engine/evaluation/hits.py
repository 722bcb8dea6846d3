"""Generation accuracy: whether an answer contains the object."""

from __future__ import annotations

from engine.checks import normalise


def is_hit(answer: str, object_text: str, spelling: str = "") -> bool:
    """Whether the object occurs anywhere in the answer, both lower-cased and without `:` `,` `.`.

    `spelling`: how the model's tokenizer writes the object, which counts as well: some put spaces between Chinese
    signs, or know no accents. '' where it is not known, or where signs are lost in it.

    Containment, not equality, as in the paper's reference code: what follows the object is not judged, and a short
    object may be found by chance inside a longer word.
    """
    said = normalise(answer)
    return any((wanted := normalise(text)) and wanted in said for text in (object_text, spelling))
