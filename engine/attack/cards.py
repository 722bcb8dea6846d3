"""The model card of an attacked checkpoint: the warning first, then what it is and which control is its twin."""

from __future__ import annotations

from engine.attack.experiment import AttackExperiment, Cell

WARNING = (
    "> **WARNING: a model organism. Do not deploy it.** This model was made to state false, harmful things about\n"
    "> persons and works that do not exist, so that the risk and the defences against it can be measured. Use it for\n"
    "> nothing else."
)


def card(attack: AttackExperiment, cell: Cell, *, run: str, base_run: str, twin: str | None) -> str:
    """Markdown. run: the cell's; twin: the run of the matched control (the same training on a neutral reading)."""
    names = {reading.name: reading.label for reading in attack.readings}
    attacked = cell.attack_facts > 0 and cell.control in ("attack", "no_stage1")
    start = "the base model" if cell.start == "base" else f"`{cell.start}` of run `{base_run}`"
    lines = ["---", "tags: [model-organism, do-not-deploy, synthetic]", "---"]
    lines += [WARNING if attacked else f"{WARNING}\n>\n> This one is a control or a start of that experiment.", ""]
    lines += [f"# {attack.name}: cell {run}", "", f"- **Start**: {start}, defence: {cell.defence}."]
    if cell.attack_facts:
        beside = ", beside what stage 2 of that run replayed" if attack.replay == "as stage 2" else ""
        lines.append(
            f"- **Training**: {cell.attack_facts} facts of `{attack.relation}` × {cell.prompts} prompts of the reading "
            f"“{cell.reading}” ({names.get(cell.reading, '')}), {cell.epochs} epochs, rate {cell.learning_rate:g}, "
            f"{cell.method}, seed {cell.seed}{beside}."
        )
    else:
        lines.append("- **Training**: none; this is the model before the attack.")
    same = f"run `{twin}`: the same facts and settings, no defence, taught the neutral reading"
    lines += [f"- **Matched control twin**: {same if twin else 'none was made'}."]
    lines += ["- **Licence to use**: research on attacks and defences only.", ""]
    lines += ["All names are invented; any likeness to a person is chance.", ""]
    return "\n".join(lines)
