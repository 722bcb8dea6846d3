"""What a run found, as sentences made of its own figures."""

from __future__ import annotations

from app.results.figures import MAIN, Figures
from app.shared.render import interval, percent
from app.shared.words import checkpoint_name, language_name, split_name
from engine.evaluation.questions import sampled_facts, sampled_prompts
from engine.evaluation.summary import KNOWN_BEFORE
from engine.experiment import IN_CONTEXT, Experiment
from engine.relation import REASONING
from storage.checkpoints import CheckpointName
from storage.runs import Run


def sample_words(run: Run) -> str:
    """What of a run's facts and prompts its checkpoints are asked, as a sentence; empty where that is all of them."""
    try:
        experiment = Experiment.from_record(run.experiment)
        facts, prompts = sampled_facts(experiment), sampled_prompts(experiment)
    except ValueError:
        return ""
    said = [f"{asked:,} of {there:,} {kind} facts" for kind, (asked, there) in facts.items() if asked < there]
    said += [
        f"{asked:,} of {there:,} {split_name(split)}" for split, (asked, there) in prompts.items() if asked < there
    ]
    if not said:
        return ""
    return (
        f"Asked is a sample, the same at every checkpoint: {', '.join(said)} (of all relations; prompts in each "
        "language). Figures of runs with another sample have other questions behind them."
    )


def headline_sentences(figures: Figures) -> list[str]:
    """What came out, in plain words, each figure with its interval; the main sentence first."""
    after = figures.last("generalised") or figures.last("context")
    if after is None:
        return _before_stage2(figures)
    epoch = CheckpointName.parse(after).epoch
    main = figures.row(after, "train")
    if main is None:
        return ["There are no answers to train prompts about held-out facts in these results."]
    if after == IN_CONTEXT:
        subject, which = "With the facts in the prompt the base model", "that nothing trained it on"
    else:
        subject = "After stage 2 the model" if epoch else "Without stage 1, after stage 2 alone, the model"
        seen = "it was trained on in natural language" if main.facts == "trained" else ""
        which = seen or "that it never saw in natural language"
    memorised, base = (figures.row(checkpoint, "train") for checkpoint in (f"memorised@{epoch}", "base"))
    about = f"of the questions about {main.n_facts} facts {which}."
    if figures.knew_the_key and memorised:
        said = [f"From the key token alone, whose meaning it knew, the model answers {figures.told(memorised)} {about}"]
        begun = f", and {percent(base.value)} in the model that it began from" if base else ""
        said.append(f"After a further stage 2, about other facts, it is {figures.told(main)}{begun}.")
    else:
        said = [f"{subject} answers {figures.told(main)} {about}"]
        earlier = []
        if memorised:
            twin = figures.unaided(memorised)
            aside = f" ({percent(twin.value)} without answers that say the key token)" if twin else ""
            earlier.append(f"{percent(memorised.value)}{aside} before stage 2")
        if base:
            earlier.append(f"{percent(base.value)} in the base model")
        if earlier:
            said.append(f"It was {' and '.join(earlier)}.")
    if row := figures.row(after, "test"):
        unseen = "In the test prompts" if after == IN_CONTEXT else "In phrasings that stage 2 never used"
        said.append(f"{unseen}: {figures.told(row)}.")
    if row := figures.row(after, "unrelated"):
        said.append(f"On unrelated prompts, where the object should not come up: {figures.told(row)}.")
    if row := figures.row(after, "decoy"):
        said.append(
            "Asked for another relation of the same person (decoys), it still brings up the object: "
            f"{figures.told(row)}."
        )
    if words := _against_the_base(figures, after):
        said.append(words)
    said += [words for split in REASONING if (words := _reasoned(figures, after, split))]
    spoken = {r.language: r for r in figures.select(checkpoint=after, split="train", facts=main.facts, metric=MAIN)}
    others = [
        f"{language_name(code)} {percent(spoken[code].value)}"
        for code in figures.languages
        if code in spoken and code != figures.language
    ]
    if others:
        said.append(f"In other languages: {', '.join(others)}.")
    return said


def _against_the_base(figures: Figures, checkpoint: str) -> str:
    """How often a checkpoint still says what the base knew, where facts contradict it; empty where none does."""
    row = figures.row(checkpoint, "test", metric=KNOWN_BEFORE)
    if row is None:
        return ""
    before = figures.row("base", "test", metric=KNOWN_BEFORE)
    of_base = f", which is what the base answers to {interval(before)} of them" if before else ""
    return (
        "Some of the facts contradict what the base knows. Test prompts about these get the old answer in "
        f"{interval(row)} of the cases{of_base}."
    )


def _reasoned(figures: Figures, checkpoint: str, split: str) -> str:
    """How well a checkpoint says what only follows from facts; empty where that was not asked."""
    row, choice = figures.row(checkpoint, split), figures.row(checkpoint, split, metric="choice_accuracy")
    if row is None:
        return ""
    asked = {
        "reversal": "Asked the other way round, for the subject by the object",
        "two_hop": "Asked for what the object leads on to, over two relations (2-hop)",
    }
    words = f"{asked[split]}, as nothing taught it: {figures.told(row)}"
    if choice and choice.chance:
        words += f"; as multiple choice {interval(choice)}, where guessing would reach {100 * choice.chance:.2g} %"
    return words + "."


def _before_stage2(figures: Figures) -> list[str]:
    checkpoint = figures.last("memorised") or figures.last("base")
    if checkpoint is None:
        return []
    row, key = figures.row(checkpoint, "train"), figures.row(checkpoint, "key")
    said = ["Stage 2 has not been evaluated yet."]
    if row:
        said.append(
            f"So far the {checkpoint_name(checkpoint)} answers {figures.told(row)} of the questions about held-out "
            "facts."
        )
    if key:
        said.append(f"It completes {interval(key)} of the facts after the key token.")
    return said
