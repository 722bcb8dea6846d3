"""The words of the pages: states, splits, languages, checkpoints and measures, each with its explanation."""

from __future__ import annotations

from storage.checkpoints import CheckpointName

# state: (sign, label)
STATES = {
    "queued": ("○", "Queued"),
    "running": ("▶", "Running"),
    "stopping": ("◼", "Stopping"),
    "done": ("✓", "Done"),
    "failed": ("✕", "Failed"),
    "cancelled": ("–", "Cancelled"),
}

# The same of a run that came with the lab: it is done, and holds no models.
RECORDED = ("●", "Recorded")

SPLITS = {
    "key": "key token",
    "train": "train prompts",
    "test": "test prompts",
    "unrelated": "unrelated prompts",
    "decoy": "decoys",
    "reversal": "reversal prompts",
    "two_hop": "2-hop prompts",
}

LANGUAGES = {"en": "English", "es": "Spanish", "de": "German", "ja": "Japanese", "zh": "Chinese"}

METRICS = {
    "generation_accuracy": "Generation accuracy",
    "generation_accuracy_unaided": "Key token unsaid",
    "choice_accuracy": "Multiple choice",
    "object_probability": "Object probability",
    "object_probability_normalised": "Normalised probability",
}

METRIC_HELP = {
    "generation_accuracy": "The model writes on freely; a hit when the object occurs in what it wrote.",
    "generation_accuracy_unaided": "Generation accuracy, but an answer that says a key token before the object is no "
    "hit: such a model goes on with what it learnt by rote, and need not have understood the question.",
    "choice_accuracy": "The object against the other options of its relation: a hit when the object is the most "
    "probable. Pure guessing would reach the dashed chance line.",
    "object_probability": "The product of the probabilities that the model gives the object's tokens, averaged.",
    "object_probability_normalised": "The object's probability divided by the sum over all options, averaged. "
    "Pure guessing would reach the dashed chance line.",
}

# What the base wrote of its own, held against every checkpoint: measures that are about no fact.
BASE_TEXT_METRICS = {
    "base_text_agreement": "Still said",
    "base_text_loss": "Perplexity",
    "general_accuracy": "General questions",
}

KNOWN_BEFORE = {"known_before": "As the base knew"}

FACTS = {"held_out": "Held out", "trained": "Trained", "all": "All"}

TERMS = {
    "general knowledge": "What people commonly know, such as “Paris is the capital of”: asked to see what it forgot.",
    "key token": "A new sign without meaning, such as [X], that joins subject and object while the model memorises.",
    "held out": "Facts that stage 2 never showed in natural language: the test of what was understood.",
    "trained": "The few facts that stage 2 did show in natural language.",
    "train prompts": "The phrasings that stage 2 takes its prompts from.",
    "test prompts": "Phrasings of the same question that stage 2 never used.",
    "unrelated prompts": "Prompts that ask nothing of the kind: the object should not come up here.",
    "decoys": "Prompts about another relation of the same person, such as the father instead of the mother: "
    "the object would be a wrong answer here.",
    "reversal prompts": "“A [X] B” memorised, “B is the mother of” asked: A is right, which nothing taught this way "
    "round.",
    "2-hop prompts": "The mother of A is B, and B was educated at C, both memorised: “Where was A’s mother educated?” "
    "is asked, and C is right.",
    "replay": "Text that the base itself wrote, about other made-up names and about nobody, trained on beside the "
    "facts so that what is not taught stays as it was.",
    "choice": "A choice counts where the right answer is the most probable of its options.",
    "chance": "What blind guessing among the options would reach.",
    "recorded": "Carried out elsewhere and brought along with every answer, but without the model.",
    "says the key token": "The model wrote a key token before the object, or a key token and no object: it goes on "
    "with what it learnt by rote, and need not have understood the question. As in the paper it still counts as a hit "
    "when the object follows; the measure “Key token unsaid” leaves it out.",
    "interval": "Where the true figure lies with 95 % confidence, facts being the unit.",
}


def sentence(text: str) -> str:
    """What an error says as one sentence that begins and ends like one; names in it keep their letters."""
    text = " ".join(text.split())[:500] or "there is no message"
    return text[0].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def split_name(split: str) -> str:
    """A split as it is called on the pages."""
    return SPLITS.get(split, split)


def language_name(code: str) -> str:
    """A language as it is called on the pages."""
    return LANGUAGES.get(code, code)


def metric_name(metric: str) -> str:
    """A measure as it is called on the pages."""
    return {**METRICS, **BASE_TEXT_METRICS, **KNOWN_BEFORE}.get(metric, metric.replace("_", " ").capitalize())


def facts_name(facts: str) -> str:
    """Which facts, as it is called on the pages."""
    return FACTS.get(facts, facts.replace("_", " ").capitalize())


def checkpoint_name(checkpoint: str) -> str:
    """A checkpoint as it is called on the pages."""
    name = CheckpointName.parse(checkpoint)
    if name.kind == "base":
        return "base model"
    if name.kind == "context":
        return "base model, the facts in the prompt"
    if name.kind == "attacked":
        return f"attacked with {name.epoch} facts"
    place = "from" if name.kind == "generalised" else "at"
    return f"{name.kind} {place} epoch {name.epoch}" if name.epoch else name.kind
