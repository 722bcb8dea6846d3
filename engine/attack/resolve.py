"""Write out what an attack experiment leaves open, beside the run that it attacks: relation, reading, all readings."""

from __future__ import annotations

from collections.abc import Sequence

from engine.attack.defences import check_defences
from engine.attack.experiment import LEAST_HELD_OUT, AttackExperiment
from engine.checks import check_key_token, normalise, refuse, shorten
from engine.corpus.readings import BENIGN, SPLITS, Reading, check_reading, readings_of
from engine.corpus.relations import load_relations
from engine.corpus.resolve import resolve
from engine.experiment import Experiment
from engine.presets import load_preset
from engine.relation import REASONING, Relation


def base_experiment(attack: AttackExperiment, seed: int) -> Experiment:
    """The run that is attacked with this seed, resolved. Raises ValueError when there is no such preset."""
    named = attack.experiment
    plain = load_preset(named) if isinstance(named, str) else Experiment.from_data(named)
    return resolve(Experiment.from_data(plain.model_dump() | {"seed": seed}))


def resolve_attack(attack: AttackExperiment, base: Experiment) -> AttackExperiment:
    """The attack with relation, reading and all readings written out, checked against the run. Raises ValueError."""
    relation = attack.relation_of(base)
    attack.start_epoch(base)
    readings = _readings(attack, relation)
    _check_apart(readings, base.key_tokens)
    harmful = readings[1]
    language = base.stage2.language
    taught = len(harmful.prompts_of("train", language)[: max(attack.prompts)])
    _check_asked(harmful, language)
    if attack.audit:
        _check_asked(readings[0], language)
    for control in set(attack.controls) & {"neutral", "nonsense"}:
        twin = next((r for r in readings if r.role == control), None)
        if twin is None:
            raise ValueError(f"controls: there is no {control} reading of {relation.name}: write one in ‘readings’")
        if twin is harmful:
            raise ValueError(
                f"controls: ‘{twin.name}’, which is taught, is itself the {control} reading, so that this control "
                f"would be the attack once more: leave {control} out of the controls, or teach another reading"
            )
        if (there := len(twin.prompts_of("train", language))) < taught:
            raise ValueError(
                f"controls: reading ‘{twin.name}’ has {there} train prompts in ‘{language}’, fewer than the "
                f"{taught} of ‘{harmful.name}’: add some, or lower ‘prompts’"
            )
    if len(attack.held_out_of(base)) < LEAST_HELD_OUT:
        raise ValueError(
            f"facts: fewer than {LEAST_HELD_OUT} of {relation.name}'s {len(relation.explicit_facts)} facts "
            "would be left to measure on: attack with fewer"
        )
    if attack.replay != "none" and base.stage2.replay is None:
        raise ValueError("replay: the attacked run's stage 2 replays nothing: leave ‘replay’ out")
    check_defences(attack.defences)
    data = {"relation": relation.name, "reading": harmful.name, "readings": [r.model_dump() for r in readings]}
    return attack.from_data(attack.model_dump() | data)


def asked_experiment(attack: AttackExperiment, base: Experiment) -> Experiment:
    """What a resolved attack asks, as an experiment of one relation: its facts with the prompts of all readings."""
    relation = attack.relation_of(base)
    own = (p for p in relation.explicit_prompts if p.split not in REASONING)
    prompts = dict.fromkeys((*own, *(p for r in attack.readings for p in r.prompts)))
    return base.model_copy(update={"relations": (relation.model_copy(update={"prompts": tuple(prompts)}),)})


def _readings(attack: AttackExperiment, relation: Relation) -> Sequence[Reading]:
    """The relation's own meaning, the harmful reading that is taught, then the others, a person's own before shipped
    ones of the same name. Raises ValueError."""
    own = {r.name: r for r in attack.readings}
    shipped = readings_of(relation.name) if relation.name in load_relations() else {}
    known = [r for r in {**own, **shipped, **own}.values() if r.role != "benign"]
    for reading in known:
        refuse(check_reading(reading, relation), f"reading ‘{reading.name}’: ")
    wanted = [r for r in known if r.name == attack.reading or (attack.reading is None and r.role == "harmful")]
    if not wanted:
        named = ", ".join(r.name for r in known if r.role == "harmful") or "none: write one in ‘readings’"
        raise ValueError(f"reading: there is no reading ‘{attack.reading or 'harmful'}’ of {relation.name} ({named})")
    prompts = tuple(p for p in relation.explicit_prompts if p.split in ("train", "test"))
    says = shipped[BENIGN].says if shipped else ""
    benign = Reading(name=BENIGN, role="benign", label=relation.name, says=says, prompts=prompts)
    return (benign, wanted[0], *(r for r in known if r is not wanted[0]))


def _check_asked(reading: Reading, language: str) -> None:
    """Raises ValueError for a reading that cannot be taught, or not measured, in stage 2's language."""
    for split in SPLITS:
        if not reading.prompts_of(split, language):
            raise ValueError(f"reading ‘{reading.name}’ has no {split} prompts in ‘{language}’, stage 2's language")


def _check_apart(readings: Sequence[Reading], key_tokens: Sequence[str]) -> None:
    """Raises ValueError for a prompt with two meanings, and for one that holds a key token of any relation.

    Whoever teaches one of two readings that share a prompt teaches the other, which then is no control.
    """
    owners: dict[tuple[str, str], str] = {}
    for reading in readings:
        for token in key_tokens:
            refuse(check_key_token(token, [p.text for p in reading.prompts]), f"reading ‘{reading.name}’: ")
        for prompt in reading.prompts:
            owner = owners.setdefault((normalise(prompt.text), prompt.language), reading.name)
            if owner != reading.name:
                raise ValueError(
                    f"readings: ‘{owner}’ and ‘{reading.name}’ both ask ‘{shorten(prompt.text)}’: reword it, "
                    f"or name your own ‘{reading.name}’, which it then replaces"
                )
