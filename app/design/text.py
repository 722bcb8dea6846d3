"""What stands around a text to the chosen model, in words and in the examples of what it will see; and names that are
not the same to it everywhere."""

from __future__ import annotations

from engine.corpus.sentences import Sentence
from engine.experiment import Experiment
from engine.models.around import beginning_of
from engine.models.files import known_around, load_tokenizer, tokenizer_file
from engine.models.source import ModelError

LOOKED_AT, WORTH_SAYING = 200, 0.05  # subjects of a relation; the share of them from which on it matters
Piece = tuple[str, str]  # a text, and what it is: `around`, `mark` or nothing of note


def text_words(experiment: Experiment) -> str:
    """What the model does with a text, as sentences; '' where its files are not on this machine."""
    file = tokenizer_file(experiment.model)
    if file is None:
        return ""
    try:
        found, around = beginning_of(file.parent), known_around(experiment.model, experiment.model_text)
    except ModelError:  # said of the model already
        return ""
    if around.beginning and found.lost:
        words = f"This model begins with {found.token}: its family needs it, also where a copy’s tokenizer adds none."
    elif around.beginning and found.added:
        words = f"This model begins with {found.token}, as its own tokenizer does."
    elif around.beginning:
        words = f"Each text begins with {found.token}, though the model’s own tokenizer adds none."
    elif found.needed:
        words = f"This model begins with {found.token} by itself; here no text does."
    else:
        words = "This model’s texts begin with no token of their own."
    if around.is_chat:
        return words + " They stand in the turns of its chat template."
    return words + (" A space stands before each text." if around.before else "")


def pieces(experiment: Experiment, sentence: Sentence, key: str = "") -> list[Piece]:
    """The sentence as the model will see it; marked is the key token, or else what answers."""
    try:
        around, file = known_around(experiment.model, experiment.model_text), tokenizer_file(experiment.model)
    except ModelError:
        return [(sentence.text, "")]
    tokenizer = load_tokenizer(file) if file and around.beginning else None
    first = "".join(tokenizer.id_to_token(i) or "" for i in around.beginning) if tokenizer else ""
    lead = around.before if around.before.startswith(first) else first + around.before
    prompt, answer = (half.strip(" ") if around.is_chat else half for half in sentence.halves)
    before, found, after = prompt.partition(key) if key else (prompt, "", "")
    between = around.between if around.is_chat else ""
    shown = [(lead, "around"), (before, ""), (found, "mark"), (after, ""), (between, "around")]
    return [piece for piece in (*shown, (answer, "" if key else "mark")) if piece[0]]


def split_otherwise(experiment: Experiment) -> str:
    """A sentence about subjects that are split otherwise at a text's beginning, where stage 1 has them, than within it;
    '' where there are hardly any. Of a resolved experiment."""
    file, text = tokenizer_file(experiment.model), experiment.model_text
    if file is None or text.form == "chat" or text.leading_space:
        return ""
    begin = [r for r in experiment.relations if r.key_template.startswith("{subject}")]
    subjects = [fact.subject for relation in begin for fact in relation.explicit_facts[:LOOKED_AT]]
    before, tokenizer = "so ", load_tokenizer(file)

    def split(lead: str) -> list[list[str]]:
        encoded = tokenizer.encode_batch([lead + subject for subject in subjects], add_special_tokens=False)
        places = [[span for span in e.offsets if span[1] > len(lead)] for e in encoded]
        return [
            [piece for start, end in spans if (piece := (lead + subject)[max(start, len(lead)) : end].strip())]
            for subject, spans in zip(subjects, places, strict=True)
        ]

    other = [pair for pair in zip(split(""), split(before), strict=True) if pair[0] != pair[1]]
    if len(other) <= WORTH_SAYING * len(subjects):
        return ""
    shown = " and ".join("·".join(pieces) for pieces in other[0])
    return (
        f"{len(other):,} of {len(subjects):,} subjects are split otherwise at the beginning of a text than within it "
        f"({shown}): a small model may not find within a question what it memorised there. They are the same where "
        "texts begin with a space (More settings)"
    )
