"""What the embedded base is put through: the lab's own two stages and their rivals, and what is asked afterwards.

Everything is done with what the lab itself does it with: its experiments, training loop, and real greedy decoding.
A trial gives, for each moment ("before 20", "after 20", …), each group of questions as a list of hits.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

from engine.base.facts import Question
from engine.corpus.names import generate_facts
from engine.corpus.relations import LANGUAGES, load_relation
from engine.corpus.resolve import resolve
from engine.corpus.sentences import key_prompt, prompt_sentence
from engine.evaluation.evaluate import decode_answers
from engine.evaluation.generation import end_tokens, reply_to
from engine.evaluation.hits import is_hit
from engine.experiment import Experiment
from engine.models.loading import LoadedModel, load_base, prepare_for_training
from engine.models.tokenise import tokenise_questions
from engine.presets import load_preset
from engine.relation import Fact, Relation
from engine.settings import Optimisation
from engine.training.loop import train
from engine.training.sequences import stage1_sequences, stage2_sequences, tokenise_sentences
from tools.recipe_search.questions import outside_facts, question_groups

RELATIONS = ("mother", "author", "capital", "educated_at", "genre")
STAGE1_EPOCHS = (3, 6, 10, 20)
OTHER_LANGUAGES = tuple(code for code in LANGUAGES if code != "en")
# Standard fine-tuning has a rate of its own: the best of 1e-3, 2e-3 and 4e-3 for mother and author, facts of seed 1001.
SFT_LEARNING_RATE = 1e-3
MAX_NEW_TOKENS = 10  # names have 2 to 4 tokens, those from outside the word lists more; no other limit is needed

# Moment → group → one hit or miss a question.
Outcome = dict[str, dict[str, list[bool]]]

REVERSED = "{object} is the mother of"
CHAINED = ("{subject}'s mother studied at", "The alma mater of {subject}'s mother is")


def experiment_about(model: str, relations: Sequence[str], seed: int, *, outside: bool = False) -> Experiment:
    """The lab's default experiment on `model`; each relation's key token differs with the seed.

    About the corpus's fictional names, or (`outside`) about names from outside its word lists. Several relations
    together are memorised with the settings of the preset all-relations.
    """
    plans: list[dict[str, Any]] = [{"name": name, "key_token": f"[{name[:2]}{seed}]"} for name in relations]
    if outside:
        for plan in plans:
            facts = outside_facts(load_relation(plan["name"]), seed)
            plan["facts"] = [{"subject": subject, "object": object_} for subject, object_ in facts]
    data: dict[str, Any] = {"model": model, "seed": seed, "relations": plans}
    if len(relations) > 1:
        data["stage1"] = load_preset("all-relations").stage1.model_dump()
    return resolve(Experiment.from_data(data))


def ask(loaded: LoadedModel, questions: Sequence[Question]) -> list[bool]:
    """Whether greedy decoding gives the object, for each question."""
    tokenizer: Any = loaded.tokenizer
    encoded = tokenise_questions(tokenizer, [(q.prompt, q.object) for q in questions])
    replies = reply_to(
        loaded.causal,
        encoded,
        [0] * len(encoded),
        max_new_tokens=MAX_NEW_TOKENS,
        ends=end_tokens(loaded.causal, tokenizer),
    )
    texts = decode_answers(tokenizer, [reply.tokens for reply in replies])
    return [is_hit(text, q.object) for text, q in zip(texts, questions, strict=True)]


def ask_groups(loaded: LoadedModel, groups: dict[str, list[Question]]) -> dict[str, list[bool]]:
    """`ask`, group by group, in one go."""
    hits = iter(ask(loaded, [q for questions in groups.values() for q in questions]))
    return {name: [next(hits) for _ in questions] for name, questions in groups.items()}


def held_out_groups(experiment: Experiment) -> dict[str, list[Question]]:
    """All questions about the facts that stage 2 never sees, of every relation; `key`: every fact, by key."""
    groups: dict[str, list[Question]] = {}
    for relation in experiment.relations:
        facts = [relation.explicit_facts[i] for i in experiment.held_out_facts(relation)]
        asked = question_groups(load_relation(relation.name), [(f.subject, f.object) for f in facts])
        before, after = key_prompt(relation).split("{subject}")
        asked["key"] = [Question(f"{before}{f.subject}{after}", f.object) for f in relation.explicit_facts]
        for name, questions in asked.items():
            groups.setdefault(name, []).extend(questions)
    return groups


def fit(loaded: LoadedModel, sequences: Any, settings: Optimisation, seed: int, stage: str, each: Any = None) -> None:
    """Train in place; `each(epoch)` after every epoch."""
    train(
        loaded,
        sequences,
        settings,
        seed=seed,
        stage=stage,
        on_step=lambda report: None,
        on_epoch=lambda epoch, trainer: each(epoch) if each else None,
    )


def copied(loaded: LoadedModel) -> LoadedModel:
    """The same model once more, to train another way from here.

    Every weight can be trained again: in the midst of a stage that trains some of them, the others are frozen.
    """
    model = copy.deepcopy(loaded.model).requires_grad_(True)
    return LoadedModel(model, loaded.tokenizer, loaded.key_token_ids, loaded.device)


def two_stages(experiment: Experiment, own: list[Question], epochs: Iterable[int] = STAGE1_EPOCHS) -> Outcome:
    """Memorise and generalise; after the last epoch of stage 1 also from one single fact (k=1, 8 epochs).

    Everything is asked at the last epoch, English alone at earlier ones and of the untrained base.
    """
    groups = held_out_groups(experiment) | {"own facts": own}
    english = {name: questions for name, questions in groups.items() if name.split()[-1] not in OTHER_LANGUAGES}
    loaded = load_base(experiment)
    outcome = {"base": ask_groups(loaded, english)}
    loaded = prepare_for_training(loaded, experiment)
    kept = sorted(epochs)

    def generalise(name: str, plan: Experiment, asked: dict[str, list[Question]]) -> None:
        branch = copied(loaded)
        fit(branch, stage2_sequences(plan, branch), plan.stage2, experiment.seed, "stage2")
        outcome[name] = ask_groups(branch, asked)

    def each(epoch: int) -> None:
        asked = groups if epoch == kept[-1] else english
        if epoch in kept:
            outcome[f"before {epoch}"] = ask_groups(loaded, asked)
            generalise(f"after {epoch}", experiment, asked)
        if epoch == kept[-1]:
            stage2 = experiment.stage2.model_copy(update={"facts": 1, "epochs": 8, "batch_size": 1})
            generalise("after one fact", experiment.model_copy(update={"stage2": stage2}), english)

    settings = experiment.stage1.model_copy(update={"epochs": kept[-1]})
    fit(loaded, stage1_sequences(experiment, loaded), settings, experiment.seed, "stage1", each)
    return outcome


def prompt_tuning_alone(model: str, relation: str, seed: int, own: list[Question]) -> Outcome:
    """Standard fine-tuning (SFT): no key token, every fact in the one prompt, for as many tokens as both stages take.

    Every weight is trained, with the loss on the object; else as in stage 1.

    The facts that are asked are those which two stages hold out of stage 2; here they were trained, in that prompt.
    """
    experiment = experiment_about(model, [relation], seed)
    loaded = prepare_for_training(load_base(experiment), experiment)
    stage1, stage2 = stage1_sequences(experiment, loaded), stage2_sequences(experiment, loaded)
    budget = experiment.stage1.epochs * _tokens(stage1) + experiment.stage2.epochs * _tokens(stage2)
    only = experiment.relations[0]
    prompt = experiment.stage2_prompts(only)[0].text
    sentences = [prompt_sentence(prompt, fact) for fact in only.explicit_facts]
    sequences = tokenise_sentences(loaded.tokenizer, sentences, "object")
    epochs = max(1, round(budget / _tokens(sequences)))
    settings = experiment.stage1.model_copy(
        update={"epochs": epochs, "learning_rate": SFT_LEARNING_RATE, "trained_weights": "all"}
    )
    fit(loaded, sequences, settings, seed, "stage1")
    return {"one-prompt SFT": ask_groups(loaded, held_out_groups(experiment) | {"own facts": own})}


def reversal_and_two_hop(model: str, seed: int) -> Outcome:
    """Mothers memorised, children asked; mothers' universities memorised with them, the chain asked.

    Both after stage 1 and after both stages, of all facts. Prompts: `REVERSED`, `CHAINED`.
    """
    plain = experiment_about(model, ["mother", "educated_at"], seed)
    mother, school = plain.relations
    mothers = mother.explicit_facts
    schools = [place for _, place in generate_facts("educated_at", seed)]
    pairs = tuple(Fact(subject=m.object, object=s) for m, s in zip(mothers, schools, strict=True))
    chained = _with_facts(school, pairs)
    experiment = Experiment.from_data(plain.model_dump() | {"relations": [mother.model_dump(), chained]})
    groups = {
        "reversal": [Question(REVERSED.format(object=f.object), f.subject) for f in mothers],
        "2-hop": [
            Question(p.format(subject=m.subject), s.object)
            for p in CHAINED
            for m, s in zip(mothers, pairs, strict=True)
        ],
    }
    loaded = load_base(experiment)
    outcome = {"base": ask_groups(loaded, groups)}
    loaded = prepare_for_training(loaded, experiment)
    fit(loaded, stage1_sequences(experiment, loaded), experiment.stage1, seed, "stage1")
    outcome["before 20"] = ask_groups(loaded, groups)
    fit(loaded, stage2_sequences(experiment, loaded), experiment.stage2, seed, "stage2")
    outcome["after 20"] = ask_groups(loaded, groups)
    return outcome


def _with_facts(relation: Relation, facts: tuple[Fact, ...]) -> dict[str, Any]:
    return relation.model_dump() | {"facts": [f.model_dump() for f in facts], "options": [f.object for f in facts]}


def _tokens(sequences: Iterable[Any]) -> int:
    return sum(len(sequence.input_ids) for sequence in sequences)
