"""Where the right answer ranks among the options, on either server.

The embedded server scores all options of a question as one tree in one forward pass. vLLM has no such thing; there the
tree is walked from its root, and a branch is left where it can no longer matter: ln P(option) is at most the ln P of
its beginning, so options whose beginning is less likely than the whole right answer rank below it, unseen. Both are
exact; for a model that is sure of its answer the walk ends after one step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.evaluation.answer import rank_of
from engine.serving.asking.turns import after_answers
from engine.serving.client import Ids, ServerClient, in_parts
from engine.serving.protocol import MOST_LOGPROB_TOKEN_IDS, SCORE_OPTIONS, TOKEN_ID

AT_ONCE = 1000
# Tokens of options in one request, where a question counts as some beside: 10,000 questions are the most.
MOST_OPTION_TOKENS, EACH_TOKENS = 500_000, 50


@dataclass(frozen=True, slots=True)
class Ranked:
    """A question: the prompt, the options (token ids), which of them is right, and ln P of that one."""

    prompt: Ids
    options: tuple[tuple[int, ...], ...]
    truth: int
    log_probability: float


def rank(client: ServerClient, model: str, questions: Sequence[Ranked]) -> list[int]:
    """The rank of each right answer: 1 is best, a tie goes against it. Raises ServingError."""
    if client.offers(SCORE_OPTIONS):
        parts = in_parts(questions, lambda q: EACH_TOKENS + sum(map(len, q.options)), MOST_OPTION_TOKENS)
        return [rank for part in parts for rank in _rank_together(client, model, part)]
    by_options: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for number, question in enumerate(questions):
        by_options.setdefault(question.options, []).append(number)
    ranks = [0] * len(questions)
    for options, numbers in by_options.items():
        values = walk(client, model, options, [questions[n] for n in numbers])
        for number, value in zip(numbers, values, strict=True):
            ranks[number] = value
    return ranks


def _rank_together(client: ServerClient, model: str, questions: Sequence[Ranked]) -> list[int]:
    """The ranks where a server scores all options of a question at once."""
    sets = {options: place for place, options in enumerate(dict.fromkeys(q.options for q in questions))}
    lines = client.score_options(model, [(q.prompt, sets[q.options]) for q in questions], list(sets))
    return [rank_of(line, q.truth) for q, line in zip(questions, lines, strict=True)]


def walk(
    client: ServerClient, model: str, options: Sequence[tuple[int, ...]], questions: Sequence[Ranked]
) -> list[int]:
    """The ranks of questions with the same options, by walking the options' tree; works on every server."""
    ends: dict[tuple[int, ...], list[int]] = {}
    children: dict[tuple[int, ...], dict[int, None]] = {}
    for number, option in enumerate(options):
        ends.setdefault(option, []).append(number)
        for place, token in enumerate(option):
            children.setdefault(option[:place], {})[token] = None
    better = [len(ends[options[q.truth]]) for q in questions]
    level: dict[tuple[int, ...], dict[int, float]] = {(): dict.fromkeys(range(len(questions)), 0.0)}
    while level:
        deeper: dict[tuple[int, ...], dict[int, float]] = {}
        for path, reached in level.items():
            prompts = [[*questions[q].prompt, *path] for q in reached]
            for q, scores in zip(reached, _next(client, model, prompts, list(children[path])), strict=True):
                for token, score in scores.items():
                    here, total = (*path, token), reached[q] + score
                    if total < questions[q].log_probability:
                        continue
                    if options[questions[q].truth] != here:
                        better[q] += len(ends.get(here, ()))
                    if here in children:
                        deeper.setdefault(here, {})[q] = total
        level = deeper
    return better


def _next(
    client: ServerClient, model: str, prompts: Sequence[Sequence[int]], tokens: Sequence[int]
) -> list[dict[int, float]]:
    """For each prompt {token: ln P(token | prompt)} of these tokens."""
    scored: list[dict[int, float]] = [{} for _ in prompts]
    for first in range(0, len(tokens), MOST_LOGPROB_TOKEN_IDS):
        part = list(tokens[first : first + MOST_LOGPROB_TOKEN_IDS])
        for start in range(0, len(prompts), AT_ONCE):
            after_answers(client.base_url)
            reply = client.complete(
                model,
                [list(p) for p in prompts[start : start + AT_ONCE]],
                max_tokens=1,
                temperature=0.0,
                logprobs=len(part),
                logprob_token_ids=part,
                return_tokens_as_token_ids=True,
            )
            for scores, choice in zip(scored[start:], reply.choices, strict=False):
                top = (choice.logprobs.top_logprobs[0] if choice.logprobs else None) or {}
                scores.update({t: top[f"{TOKEN_ID}{t}"] for t in part})
    return scored
