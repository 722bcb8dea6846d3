"""Generation accuracy: whether an answer contains the object."""

from __future__ import annotations

from engine.checks import normalise


def is_hit(answer: str, object_text: str) -> bool:
    """Whether the object occurs anywhere in the answer, both lower-cased and without `:` `,` `.`.

    Containment, not equality, as in the paper's reference code: what follows the object is not judged, and a short
    object may be found by chance inside a longer word.
    """
    wanted = normalise(object_text)
    return bool(wanted) and wanted in normalise(answer)
