"""An experiment's facts and prompts as a data set that Hugging Face's `datasets` opens.

    write_files(dataset_files(experiment), Path("my-dataset"))
    datasets.load_dataset("my-dataset", "facts")["held_out"]

A folder of JSON Lines with a card: `facts` (trained in stage 2, or held out of it), `prompts` by their split, and
`stage1` and `stage2`, the texts that the stages train on, each where there is such a stage. Knows no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml

from engine.corpus.sentences import key_sentence, prompt_sentence
from engine.evaluation.questions import KEY_SPLIT, options_of, prompt_rows
from engine.experiment import Experiment
from engine.exports.markdown import plain
from engine.exports.target import Files

Rows = list[dict[str, Any]]
UNKNOWN_LICENCE = "unknown"
# Features of each configuration, and what a column means.
COLUMNS: dict[str, dict[str, tuple[str, str]]] = {
    "facts": {
        "relation": ("string", "the relation that joins subject and object"),
        "subject": ("string", "whom or what the fact is about"),
        "object": ("string", "what answers a question about it"),
        "key_token": ("string", "the sign without meaning that stands between them in stage 1"),
        "options": ("list", "the answers of the multiple choice, the object among them"),
    },
    "prompts": {
        "relation": ("string", "the relation that it belongs to"),
        "text": (
            "string",
            "the prompt; `{subject}` stands for the subject, the object follows after one space; in reversals "
            "`{object}` stands for the object, the subject follows",
        ),
        "language": ("string", "its language, as ISO 639-1 names it"),
        "about": (
            "string",
            "of a decoy: the relation that it asks for; of two_hop: the second one; else empty",
        ),
        "used": ("bool", "whether stage 2 trains on it"),
    },
    "stage1": {"relation": ("string", "its relation"), "text": ("string", "a fact with its key token")},
    "stage2": {
        "relation": ("string", "its relation"),
        "prompt": ("string", "the text up to the object"),
        "completion": ("string", "the object, with the space before it: what the loss is computed on"),
    },
}


def dataset_files(experiment: Experiment, licence: str = UNKNOWN_LICENCE) -> Files:
    """The folder's files, of a resolved experiment. licence: as the hub names licences, such as `cc-by-4.0`."""
    tables = {
        "facts": _facts(experiment),
        "prompts": _prompts(experiment),
        "stage1": {"train": _stage1(experiment) if experiment.stage1.epochs else []},
        "stage2": {"train": _stage2(experiment) if not experiment.in_context else []},
    }
    tables = {name: {split: rows for split, rows in splits.items() if rows} for name, splits in tables.items()}
    tables = {name: splits for name, splits in tables.items() if splits}
    files = {
        f"{name}/{split}.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        for name, splits in tables.items()
        for split, rows in splits.items()
    }
    return {"README.md": _card(experiment, tables, licence), **files}


def _facts(experiment: Experiment) -> dict[str, Rows]:
    found: dict[str, Rows] = {"trained": [], "held_out": []}
    for relation in experiment.relations:
        trained = set(experiment.stage2_facts(relation))
        for index, fact in enumerate(relation.explicit_facts):
            found["trained" if index in trained else "held_out"].append(
                {
                    "relation": relation.name,
                    "subject": fact.subject,
                    "object": fact.object,
                    "key_token": relation.key_token,
                    "options": list(options_of(relation, fact)),
                }
            )
    return found


def _prompts(experiment: Experiment) -> dict[str, Rows]:
    found: dict[str, Rows] = {}
    for row in prompt_rows(experiment):
        if row["split"] != KEY_SPLIT:
            kept = {name: row[name] for name in ("relation", "text", "language")}
            told = {"about": row["about"] or "", "used": bool(row["used"])}
            found.setdefault(row["split"], []).append(kept | told)
    return found


def _stage1(experiment: Experiment) -> Rows:
    return [
        {"relation": relation.name, "text": key_sentence(relation, fact).text}
        for relation in experiment.relations
        for fact in relation.explicit_facts
    ]


def _stage2(experiment: Experiment) -> Rows:
    found = []
    for relation in experiment.relations:
        for index in experiment.stage2_facts(relation):
            for prompt in experiment.stage2_prompts(relation):
                asks, answers = prompt_sentence(prompt.text, relation.explicit_facts[index]).halves
                found.append({"relation": relation.name, "prompt": asks, "completion": answers})
    return found


def _card(experiment: Experiment, tables: dict[str, dict[str, Rows]], licence: str) -> str:
    languages = list(dict.fromkeys(p.language for r in experiment.relations for p in r.explicit_prompts))
    metadata = {
        "pretty_name": " ".join(experiment.name.split()),
        "license": licence,
        "language": languages,
        "tags": ["rote-lab", "synthetic", "knowledge-injection"],
        "dataset_info": [
            {"config_name": name, "features": [_feature(column, kind) for column, (kind, _) in COLUMNS[name].items()]}
            for name in tables
        ],
        "configs": [
            {
                "config_name": name,
                "data_files": [{"split": split, "path": f"{name}/{split}.jsonl"} for split in splits],
                **({"default": True} if name == "facts" else {}),
            }
            for name, splits in tables.items()
        ],
    }
    head = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n" + "\n".join(_card_lines(experiment, tables, licence)) + "\n"


def _feature(name: str, kind: str) -> dict[str, Any]:
    return {"name": name, "list": "string"} if kind == "list" else {"name": name, "dtype": kind}


def _card_lines(experiment: Experiment, tables: dict[str, dict[str, Rows]], licence: str) -> Iterator[str]:
    yield f"# {plain(experiment.name)}"
    yield ""
    if experiment.description:
        yield plain(experiment.description)
        yield ""
    yield (
        "Facts that a language model memorises through key tokens without meaning, and the prompts that then give "
        "these a meaning, as an experiment of Rote Lab has them (Rote Learning Considered Useful, arXiv 2507.21914). "
        f"Which facts stage 2 trains on was drawn with the seed {experiment.seed}."
    )
    if experiment.in_context:
        yield (
            "This experiment trains nothing: it asks a base model that has the facts in its prompt. Which facts and "
            "prompts count as trained says only which ones stage 2 would take."
        )
    elif not experiment.stage1.epochs:
        yield "This experiment has no stage 1: nothing is memorised through the key tokens."
    yield ""
    if licence == UNKNOWN_LICENCE:
        yield (
            "Nobody has said under which licence these data may be used: ask whoever made them, or, if that is you, "
            "name one in the first lines of this file."
        )
        yield ""
    yield "Whether the facts are made up is for their maker to say: those that the lab generates are."
    yield ""
    yield "| relation | key token | facts | of them trained in stage 2 | prompts |"
    yield "|---|---|---|---|---|"
    for relation in experiment.relations:
        facts, trained = len(relation.explicit_facts), len(experiment.stage2_facts(relation))
        prompts = len(relation.explicit_prompts)
        yield f"| {plain(relation.name)} | {plain(relation.key_token)} | {facts} | {trained} | {prompts} |"
    for name, splits in tables.items():
        yield ""
        yield f"## {name}"
        yield ""
        yield ", ".join(f"`{split}` ({len(rows)})" for split, rows in splits.items())
        yield ""
        yield "| column | what it is |"
        yield "|---|---|"
        for column, (_, words) in COLUMNS[name].items():
            yield f"| `{column}` | {words} |"
