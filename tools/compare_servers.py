"""Whether a server says what transformers computes in float32, on a run's own questions in all its languages.

python -m tools.compare_servers --home DIR --run RUN --server vllm [--model memorised@16 …] [--prompts 200]

For each model: how far the furthest log-probability (of every token of prompt and answer) is from transformers', how
many greedy answers are the same tokens, and how long the server took for all of them and for one fact in every prompt.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer

from engine.evaluation.questions import asked_about, questions_for
from engine.experiment import Experiment
from engine.models.catalogue import use_home
from engine.models.loading import LoadedModel, load_base, load_checkpoint
from engine.models.tokenise import tokenise_questions
from engine.serving.asking.ask import Sampling, ask
from engine.serving.asking.questions import fact_questions
from engine.serving.client import ServerClient
from engine.serving.processes.supervisor import Place, Supervisor
from engine.serving.served import ServedModel, served_models
from storage.database import open_database
from storage.runs import get_run

ANSWER_TOKENS = 12


@dataclass(frozen=True)
class Compared:
    """What was compared: `prompts`, all their `tokens`, the `furthest` log-probability, `same` greedy answers."""

    prompts: int
    tokens: int
    furthest: float
    same: int
    seconds: float


def compare(place: Place, loaded: LoadedModel, prompts: Sequence[list[int]]) -> Compared:
    """Ask a served model and hold every token's log-probability, and its greedy answers, against transformers'."""
    with ServerClient(place.url) as client:
        began = time.monotonic()
        reply = client.complete(
            place.model, [list(ids) for ids in prompts], max_tokens=ANSWER_TOKENS, temperature=0, logprobs=0,
            prompt_logprobs=0, return_token_ids=True, return_tokens_as_token_ids=True,
        )  # fmt: skip
        seconds = time.monotonic() - began
    furthest, tokens, same = 0.0, 0, 0
    for prompt, choice in zip(prompts, reply.choices, strict=True):
        answer = choice.token_ids or []
        with torch.inference_mode():
            logits = loaded.model(torch.tensor([prompt + answer])).logits[0]
        expected = torch.log_softmax(logits.double(), -1)
        same += logits[len(prompt) - 1 : -1].argmax(-1).tolist() == answer
        assert choice.logprobs is not None and choice.prompt_logprobs is not None
        found = [at[i].logprob for i, at in zip(prompt[1:], choice.prompt_logprobs[1:], strict=True) if at]
        found += [x for x in choice.logprobs.token_logprobs if x is not None]
        wanted = expected[:-1].gather(1, torch.tensor(prompt[1:] + answer).unsqueeze(1)).squeeze(1)
        assert len(found) == len(wanted)
        furthest = max(furthest, (torch.tensor(found, dtype=torch.float64) - wanted).abs().max().item())
        tokens += len(found)
    return Compared(len(prompts), tokens, furthest, same, seconds)


def reference(experiment: Experiment, model: ServedModel) -> LoadedModel:
    """The model as the lab itself loads it."""
    loaded = load_base(experiment) if model.kind == "base" else load_checkpoint(experiment, model.folder)
    loaded.model.eval()
    return loaded


def main(
    home: Annotated[Path, typer.Option(help="The lab's home folder.")],
    run: Annotated[str, typer.Option(help="A finished run's id.")],
    server: Annotated[Literal["vllm", "embedded"], typer.Option(help="Which server is asked.")],
    model: Annotated[list[str] | None, typer.Option(help="base, memorised@16 …; every one of the run's.")] = None,
    prompts: Annotated[int, typer.Option(help="How many, drawn from the run's questions.")] = 200,
) -> None:
    """Print a line for each model."""
    use_home(home)
    found = get_run(open_database(home), run)
    experiment = Experiment.from_record(found.experiment)
    models = [m for m in served_models(home, found) if not model or m.checkpoint in model]
    relation = experiment.relations[0]
    subject = relation.explicit_facts[min(asked_about(experiment, relation))].subject
    supervisor = Supervisor(home, server)
    supervisor.start()
    try:
        for served in models:
            began = time.monotonic()
            place = supervisor.place(served)
            ready = time.monotonic() - began
            loaded = reference(experiment, served)
            line = _line(compare(place, loaded, _drawn(experiment, loaded, prompts)))
            questions = fact_questions(experiment, subject)
            with ServerClient(place.url, names=place.names) as client:
                began = time.monotonic()
                ask(client, served, questions, Sampling(max_tokens=ANSWER_TOKENS))
            fact = f"one fact in {len(questions)} prompts with its ranks {time.monotonic() - began:.1f} s"
            typer.echo(
                f"{served.checkpoint} ({served.kind}) on {place.backend}: {line}; {fact}; ready in {ready:.0f} s"
            )
    finally:
        supervisor.stop()


def _drawn(experiment: Experiment, loaded: LoadedModel, count: int) -> list[list[int]]:
    """Token ids of so many of the questions that the last checkpoint was asked."""
    questions = questions_for(experiment, experiment.checkpoints[-1])
    tokenizer: Any = loaded.tokenizer
    chosen = random.Random(0).sample(questions, min(count, len(questions)))
    return [prompt for prompt, _ in tokenise_questions(tokenizer, [(q.text, q.object) for q in chosen])]


def _line(compared: Compared) -> str:
    return (
        f"{compared.prompts} prompts, {compared.tokens:,} tokens, furthest log-probability {compared.furthest:.1e}, "
        f"{compared.same} greedy answers the same, {compared.seconds:.1f} s"
    )


if __name__ == "__main__":
    typer.run(main)
