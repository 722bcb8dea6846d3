"""A run's questions as tasks of lm-evaluation-harness, which ask a model the same and judge it alike.

    task = harness_task(served_model(home, run, "generalised@20"), run, list_results(db, run.id))
    write_files(task.files, Path("my-task"))

Every task is one kind of question (generation or choice), facts, split and language, as a row of the results is. Around
a text stands what stood there in the run: turns of a chat template are written into the questions, and the tokenizer
that the lab saves with a checkpoint adds the beginning token, or none, by itself. Knows no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from engine.base.known import known_questions
from engine.checks import normalise
from engine.corpus.general import GENERAL, GENERAL_TOKENS, SPLIT
from engine.evaluation.questions import KEY_SPLIT, Question, fact_rows, prompt_rows, questions_for
from engine.experiment import Experiment
from engine.exports.markdown import plain
from engine.exports.target import Files
from engine.models.around import Around, around_beside
from engine.models.files import known_around, load_tokenizer, tokenizer_file
from engine.models.spelling import file_speller
from engine.serving.served import ServedModel
from storage.checkpoints import CheckpointName
from storage.measurements import Result
from storage.runs import Run

TESTED = "0.4.13"
CODE = Path(__file__).with_name("harness_task.py")
MODULE = "rote_lab_task"
KINDS = {
    "generation": ("generation_accuracy",),
    "choice": ("choice_accuracy", "object_probability_normalised"),
    "general": (GENERAL,),  # what the base knew, which is about no facts
}
_NO_FACTS = "none"


@dataclass(frozen=True)
class HarnessTask:
    """The folder's files. tag: by which all its tasks are run; tasks: how many; questions: how many different ones.

    cut_elsewhere: how many texts the harness cuts into tokens otherwise than the lab, so that its numbers may differ.
    """

    files: Files
    tag: str
    tasks: int
    questions: int
    cut_elsewhere: int


def harness_task(model: ServedModel, run: Run, results: Sequence[Result]) -> HarnessTask:
    """The tasks of one model of a run. results: the run's, for the lab's own numbers beside the tasks.

    Raises ValueError when nothing is asked of it, and ModelError (a ValueError) for a tokenizer that cannot be read.
    """
    experiment = Experiment.from_record(run.experiment)
    file, around = _tokenizer(model, experiment)
    questions = questions_for(experiment, model.checkpoint)
    if not questions:
        raise ValueError("nothing is asked of this checkpoint: choose another one")
    rows, options = _rows(experiment, questions, file, around)
    rows += _general_rows(experiment, file, around)
    name = CheckpointName.parse(model.checkpoint)
    tag = f"rote_{run.id}_{name.kind}" + (f"_{name.epoch}" if name.epoch else "")
    groups: dict[tuple[str, str, str, str], int] = {}
    for kind in KINDS:
        for row in rows:
            if _is_of(row, kind):
                place = (kind, row["facts"], row["split"], row["language"])
                groups[place] = groups.get(place, 0) + 1
    own = {(r.facts, r.split, r.language, r.metric): r for r in results if r.checkpoint == model.checkpoint}
    elsewhere = _cut_elsewhere(file, around, questions) if file else 0
    files = {
        f"{MODULE}.py": CODE.read_text(encoding="utf-8"),
        "questions.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
        "options.json": json.dumps(options, ensure_ascii=False),
        **{f"_{kind}_yaml": _base(kind, experiment, around) for kind in dict.fromkeys(kind for kind, *_ in groups)},
        **{f"{task_name(tag, place)}.yaml": _task(tag, place) for place in groups},
    }
    told = "\n".join(_readme_lines(run, model, tag, groups, own, elsewhere)) + "\n"
    return HarnessTask({"README.md": told, **files}, tag, len(groups), len(rows), elsewhere)


def _tokenizer(model: ServedModel, experiment: Experiment) -> tuple[Path | None, Around]:
    """The tokenizer.json, if it is on this machine, and what stands around a text to the model."""
    if model.tokenizer.is_file():
        return model.tokenizer, around_beside(model.tokenizer)
    return tokenizer_file(experiment.model), known_around(experiment.model, experiment.model_text)


def _rows(
    experiment: Experiment, questions: Sequence[Question], file: Path | None, around: Around
) -> tuple[list[dict[str, Any]], list[list[str]]]:
    """A row a question, whose `options` is a place in the second list."""
    facts, prompts = fact_rows(experiment), prompt_rows(experiment)
    spelt = _spellings(experiment, questions, file, around)
    places: dict[tuple[str, ...], int] = {}
    rows = []
    for question in questions:
        fact, prompt = facts[question.fact - 1], prompts[question.prompt - 1]
        rows.append(
            {
                "prompt": question.prompt,
                "fact": question.fact,
                "relation": fact["relation"],
                "facts": "trained" if fact["trained"] else "held_out",
                "split": prompt["split"],
                "language": prompt["language"],
                "question": around.asks(question.text),
                "object": question.object,
                "accepted": _accepted(question, spelt),
                "options": places.setdefault(question.options, len(places)) if question.options else None,
            }
        )
    return rows, [list(options) for options in places]


def _general_rows(experiment: Experiment, file: Path | None, around: Around) -> list[dict[str, Any]]:
    """The questions about what the base knew, as evaluation asks them of every checkpoint."""
    count = experiment.evaluation.general
    # Not where nobody asks: the questions about a world that the lab made load transformers.
    known = known_questions(experiment.model)[:count] if count else ()
    asked = [Question(place, 0, text, answer) for place, (text, answer) in enumerate(known, 1)]
    spelt = _spellings(experiment, asked, file, around)
    of = {"fact": 0, "relation": "", "facts": _NO_FACTS, "split": SPLIT, "language": "en", "options": None}
    return [
        {
            **of,
            "prompt": question.prompt,
            "question": around.asks(question.text),
            "object": question.object,
            "accepted": _accepted(question, spelt),
        }
        for question in asked
    ]


def _is_of(row: dict[str, Any], kind: str) -> bool:
    """Whether a question is asked in tasks of a kind."""
    if row["facts"] == _NO_FACTS:
        return kind == "general"
    return kind == "generation" or (kind == "choice" and row["options"] is not None)


def _accepted(question: Question, spelt: dict[tuple[str, str], str]) -> list[str]:
    """The forms of the object of which one makes a hit."""
    forms = dict.fromkeys(map(normalise, (question.object, spelt.get((question.text, question.object), ""))))
    return [form for form in forms if form]


def _spellings(
    experiment: Experiment, questions: Sequence[Question], file: Path | None, around: Around
) -> dict[tuple[str, str], str]:
    """How the tokenizer writes each object behind each question, '' where some of it is unknown to it."""
    if file is None:
        return {}
    speller = file_speller(file, list(experiment.key_tokens), around)
    pairs = list(dict.fromkeys((question.text, question.object) for question in questions))
    ids = [tuple(answer) for _, answer in speller.split(pairs)]
    texts = speller.texts(ids)
    return {p: "" if speller.unknown & set(i) else text for p, i, text in zip(pairs, ids, texts, strict=True)}


def _cut_elsewhere(file: Path, around: Around, questions: Sequence[Question]) -> int:
    """How many texts have another token at the edge between question and answer in the harness, which tokenises the
    question alone, than in the lab, which tokenises both together."""
    tokenizer = load_tokenizer(file)
    # An option's tokens depend on the end of the question alone.
    ends = {(q.text.rsplit(" ", 1)[-1], option) for q in questions for option in q.options}
    pairs = sorted({*((q.text, q.object) for q in questions), *ends})
    alone = {text: tokenizer.encode(around.asks(text), add_special_tokens=False).ids for text, _ in pairs}
    # The harness moves white space at the end of what it asks to the answer.
    bare = {text: tokenizer.encode(around.asks(text).rstrip(), add_special_tokens=False).ids for text, _ in pairs}
    wholes = tokenizer.encode_batch([around.whole(*pair) for pair in pairs], add_special_tokens=False)
    count = 0
    for (text, _), whole in zip(pairs, wholes, strict=True):
        edge = len(around.asks(text))
        asked = whole.ids[: next((i for i, (_, end) in enumerate(whole.offsets) if end > edge), len(whole.ids))]
        count += asked != alone[text] or whole.ids[: len(bare[text])] != bare[text]
    return count


class _Function(str):
    """The name of a function, which YAML files of the harness mark."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(_Function, lambda dumper, name: dumper.represent_scalar("!function", f"{MODULE}.{name}"))


def _dump(data: dict[str, Any]) -> str:
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _base(kind: str, experiment: Experiment, around: Around) -> str:
    """What all tasks of a kind have in common."""
    common = {
        "custom_dataset": _Function("load"),
        "test_split": "test",
        "doc_to_text": _Function("question"),
        "num_fewshot": 0,
        "metadata": {"version": 1.0},
        "process_results": _Function(f"judge_{kind}"),
        "metric_list": [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in KINDS[kind]],
    }
    if kind != "choice":
        length = GENERAL_TOKENS if kind == "general" else experiment.evaluation.max_new_tokens
        wanted = {"until": [], "max_gen_toks": length, "do_sample": False}
        own = {"output_type": "generate_until", "doc_to_target": _Function("target"), "generation_kwargs": wanted}
    else:
        space = around.between[len(around.between.rstrip(" ")) :]
        own = {
            "output_type": "multiple_choice",
            "doc_to_choice": _Function("options"),
            "doc_to_target": _Function("truth"),
            "target_delimiter": space,
        }
    return _dump(common | own)


def task_name(tag: str, place: Sequence[str]) -> str:
    """What a task is called. place: its kind, facts, split and language."""
    return "_".join((tag, *place)).replace(" ", "_")


def _task(tag: str, place: tuple[str, str, str, str]) -> str:
    kind, facts, split, language = place
    chosen = {"kind": kind, "facts": facts, "split": split, "language": language}
    return _dump(
        {
            "include": f"_{kind}_yaml",
            "task": task_name(tag, place),
            "tag": [tag, f"{tag}_{kind}"],
            "dataset_kwargs": chosen,
        }
    )


def _readme_lines(
    run: Run,
    model: ServedModel,
    tag: str,
    groups: dict[tuple[str, str, str, str], int],
    own: dict[tuple[str, str, str, str], Result],
    elsewhere: int,
) -> Iterator[str]:
    yield f"# {plain(run.name)}, run {run.id}, {model.checkpoint}"
    yield ""
    yield "Questions of a run of Rote Lab as tasks of lm-evaluation-harness (tried with version " + TESTED + "):"
    yield ""
    yield "```sh"
    yield f"lm_eval run --model hf --model_args pretrained=MODEL --tasks {tag} --include_path . --batch_size 16"
    yield "```"
    yield ""
    yield (
        f"MODEL: the folder that `rote-lab export model {run.id} --checkpoint {model.checkpoint} --merged --to MODEL` "
        "writes. Its tokenizer puts in front of a text what the run put there, so set neither `add_bos_token` nor "
        "`--apply_chat_template`: the questions have the turns of a chat template already, where the run used one."
    )
    yield ""
    yield (
        f"`{tag}_generation` and `{tag}_choice` are one kind alone; a task's name goes on with the facts (trained in "
        f"stage 2, or held out of it), the split of the prompts (`{KEY_SPLIT}`: the key token) and the language."
    )
    if any(kind == "general" for kind, *_ in groups):
        yield ""
        yield (
            f"`{tag}_general` asks what the base knew, about none of the facts: of every checkpoint, it tells what was "
            "forgotten."
        )
    if elsewhere:
        yield ""
        yield (
            f"**{elsewhere:,} texts are cut into other tokens by the harness**, which reads a question without its "
            "answer, than by the lab: numbers may differ there."
        )
    yield ""
    yield "| task | metric | questions | the lab's own number |"
    yield "|---|---|---|---|"
    for place, count in groups.items():
        kind, *rest = place
        for metric in KINDS[kind]:
            row = own.get((rest[0], rest[1], rest[2], metric))
            said = f"{row.value:.4f} [{row.low:.2f}–{row.high:.2f}], n = {row.n}" if row else "–"
            yield f"| `{task_name(tag, place)}` | `{metric}` | {count} | {said} |"
