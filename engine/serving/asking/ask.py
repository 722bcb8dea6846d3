"""Put questions to served models: what is asked of one fact, and what the answer is worth.

    queries = fact_queries(experiment, fact=1)
    for answers in ask_in_steps(client, served, queries): ...   # answers first, then with their ranks
    answers = ask(client, served, queries)

Knows no torch: tokens are made with the run's own tokenizer.json.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from engine.checks import shorten
from engine.evaluation.hits import is_hit
from engine.serving.asking.queries import Query
from engine.serving.asking.ranking import AT_ONCE, Ranked, rank
from engine.serving.asking.tokens import Ids, Tokens
from engine.serving.asking.turns import answering
from engine.serving.client import ServerClient
from engine.serving.protocol import SCORE_ANSWERS, TOKEN_ID, Choice
from engine.serving.served import ServedModel

MAX_TEXT_CHARACTERS = 100_000
# Every model reads at least this many tokens; only beyond it is the server asked for its limit.
CERTAIN_CONTEXT = 128

Pair = tuple[Ids, Ids]  # of a prompt and of its object


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is chosen. temperature 0 is greedy, and then top_p and seed mean nothing."""

    max_tokens: int = 50
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """A token of an answer, or one that could have stood there; log_probability: natural logarithm."""

    id: int
    text: str
    log_probability: float


@dataclass(frozen=True, slots=True)
class Answer:
    """One model's answer to one query.

    hit: whether the answer contains the object (None without an object). log_probability: ln P(object | text), None
    without an object. rank of the object among `options` answers: 1 is best, a tie goes against it; None until it is
    known, and where there is nothing to rank. finish_reason: `stop` or `length`.
    """

    query: Query
    model: str
    text: str
    tokens: tuple[Token, ...]
    finish_reason: str
    hit: bool | None = None
    log_probability: float | None = None
    rank: int | None = None
    options: int | None = None

    def to_row(self) -> dict[str, Any]:
        """Plain data for JSON and CSV; probabilities besides their logarithms."""
        query = asdict(self.query)
        options = query.pop("options")
        probability = None if self.log_probability is None else math.exp(self.log_probability)
        return {
            **query,
            "model": self.model,
            "answer": self.text,
            "hit": self.hit,
            "probability": probability,
            "log_probability": self.log_probability,
            "rank": self.rank,
            "options": len(options) or None,
            "finish_reason": self.finish_reason,
        }


def ask_in_steps(
    client: ServerClient, served: ServedModel, queries: Sequence[Query], sampling: Sampling = Sampling()
) -> Iterator[list[Answer]]:
    """All answers of one model, twice: as soon as they are there, with hit and probability of the object, and again
    with the ranks (once, where there is nothing to rank). Raises ServingError; ValueError for what cannot be asked."""
    tokens = Tokens.load(served.tokenizer)
    pairs = _encode(tokens, queries)
    _check_lengths(client, served, queries, pairs)
    known = [place for place, (_, object_) in enumerate(pairs) if object_]
    with answering(client.base_url):
        answers = _answers(client, served.name, tokens, queries, pairs, sampling)
        if not client.offers(SCORE_ANSWERS):
            scores = _score(client, served.name, [pairs[place] for place in known])
            for place, score in zip(known, scores, strict=True):
                answers[place] = replace(answers[place], log_probability=score)
    yield answers
    ranked = [place for place in known if queries[place].object in queries[place].options]
    if ranked:
        ranks = _rank(client, served.name, tokens, [(queries[p], pairs[p], answers[p]) for p in ranked])
        answers = list(answers)
        for place, value in zip(ranked, ranks, strict=True):
            answers[place] = replace(answers[place], rank=value, options=len(queries[place].options))
        yield answers


def ask(
    client: ServerClient, served: ServedModel, queries: Sequence[Query], sampling: Sampling = Sampling()
) -> list[Answer]:
    """All answers of one model, with ranks; the last step of `ask_in_steps`."""
    answers: list[Answer] = []
    for step in ask_in_steps(client, served, queries, sampling):
        answers = step
    return answers


def alternatives(client: ServerClient, served: ServedModel, answer: Answer, place: int, count: int = 20) -> list[Token]:
    """The `count` most likely tokens at `place` of the answer (0 is its first token; its length, what would follow),
    the likeliest first. Raises ServingError; ValueError for a place beyond the answer."""
    if not 0 <= place <= len(answer.tokens):
        raise ValueError(f"the answer has {len(answer.tokens)} tokens: there is no place {place}")
    tokens = Tokens.load(served.tokenizer)
    prompt = _encode(tokens, [answer.query])[0][0]
    fed = [*prompt, *(token.id for token in answer.tokens[:place])]
    reply = client.complete(
        served.name, [fed], max_tokens=1, temperature=0.0, logprobs=count, return_tokens_as_token_ids=True
    )
    logprobs = reply.choices[0].logprobs
    top = (logprobs.top_logprobs[0] if logprobs and logprobs.top_logprobs else None) or {}
    found = sorted(((int(name.removeprefix(TOKEN_ID)), score) for name, score in top.items()), key=lambda x: -x[1])
    return [Token(i, tokens.token_texts(fed, [i])[0], score) for i, score in found[:count]]


def _encode(tokens: Tokens, queries: Sequence[Query]) -> list[Pair]:
    """(prompt ids, object ids) of each query; no object ids where there is no object."""
    for query in queries:
        if not query.text.strip():
            raise ValueError("the prompt is empty: type at least one word")
        if len(query.text) > MAX_TEXT_CHARACTERS:
            raise ValueError(
                f"the prompt has {len(query.text):,} characters, more than {MAX_TEXT_CHARACTERS:,}: shorten it"
            )
    split = iter(tokens.split_all([(q.text, q.object) for q in queries if q.object]))
    return [next(split) if query.object else (tokens.ids(query.text), ()) for query in queries]


def _check_lengths(
    client: ServerClient,
    served: ServedModel,
    queries: Sequence[Query],
    pairs: Sequence[Pair],
) -> None:
    """Every prompt must leave room for its object and for one token of answer."""
    longest = max((len(p) + max(len(o), 1) for p, o in pairs), default=0)
    limit = client.context(served.name) if longest > CERTAIN_CONTEXT else None
    if limit is None or longest <= limit:
        return
    query, length = next(
        (q, len(p)) for q, (p, o) in zip(queries, pairs, strict=True) if len(p) + max(len(o), 1) > limit
    )
    raise ValueError(
        f"the prompt ‘{shorten(query.text, 60)}’ has {length:,} tokens, and the model reads at most {limit:,} with its "
        "answer: shorten it"
    )


def _answers(
    client: ServerClient,
    model: str,
    tokens: Tokens,
    queries: Sequence[Query],
    pairs: Sequence[Pair],
    sampling: Sampling,
) -> list[Answer]:
    settings: dict[str, Any] = {"temperature": sampling.temperature, "max_tokens": sampling.max_tokens}
    if sampling.temperature > 0:
        settings |= {"top_p": sampling.top_p} | ({} if sampling.seed is None else {"seed": sampling.seed})
    answers: list[Answer] = []
    for start in range(0, len(queries), AT_ONCE):
        part = pairs[start : start + AT_ONCE]
        room = _room(client, model, max(len(p) for p, _ in part), sampling.max_tokens)
        reply = client.complete(
            model,
            [list(prompt) for prompt, _ in part],
            **{**settings, "max_tokens": room},
            logprobs=0,
            return_token_ids=True,
            return_tokens_as_token_ids=True,
            **({"score_answers": [list(o) for _, o in part]} if client.offers(SCORE_ANSWERS) else {}),
        )
        for query, (prompt, _), choice in zip(queries[start : start + AT_ONCE], part, reply.choices, strict=True):
            answers.append(_answer(model, tokens, query, prompt, choice))
    return answers


def _room(client: ServerClient, model: str, longest: int, wanted: int) -> int:
    """How long an answer may be: vLLM refuses to begin one that might not fit."""
    limit = client.context(model) if longest + wanted > CERTAIN_CONTEXT else None
    return wanted if limit is None else max(1, min(wanted, limit - longest))


def _answer(model: str, tokens: Tokens, query: Query, prompt: Sequence[int], choice: Choice) -> Answer:
    ids = choice.token_ids or []
    # The end token is the last one, and no part of what the model says.
    ids = ids[:-1] if choice.finish_reason == "stop" and not isinstance(choice.stop_reason, str) else ids
    scores = (choice.logprobs.token_logprobs if choice.logprobs else None) or [0.0] * len(ids)
    texts = tokens.token_texts(prompt, ids)
    text = tokens.text(ids)
    return Answer(
        query,
        model,
        text,
        tuple(Token(i, t, s or 0.0) for i, t, s in zip(ids, texts, scores, strict=False)),
        choice.finish_reason or "length",
        hit=is_hit(text, query.object) if query.object else None,
        log_probability=choice.answer_logprob,
    )


def _score(client: ServerClient, model: str, pairs: Sequence[Pair]) -> list[float]:
    """ln P(object | prompt) of each pair."""
    scores: list[float] = []
    for start in range(0, len(pairs), AT_ONCE):
        scores += client.score(model, pairs[start : start + AT_ONCE])
    return scores


def _rank(
    client: ServerClient,
    model: str,
    tokens: Tokens,
    asked: Sequence[tuple[Query, Pair, Answer]],
) -> list[int]:
    """The rank of each query's object among its options."""
    known: dict[tuple[tuple[str, ...], str], tuple[Ids, ...] | None] = {}
    ranks: list[int | None] = []
    questions: list[Ranked] = []
    for query, (prompt, object_), answer in asked:
        truth = query.options.index(query.object)
        options = tokens.options(query.options)
        if options is None or options[truth] != object_:
            # How an option is cut into tokens can depend on the end of the prompt: it is worked out once for each.
            key = (query.options, query.text.rsplit(" ", 1)[-1])
            if key not in known:
                known[key] = _options_behind(tokens, query, prompt)
            options = known[key]
        if options is None or not all(options):
            scores = _score(client, model, tokens.split_all([(query.text, option) for option in query.options]))
            ranks.append(sum(score >= scores[truth] for score in scores))
        else:
            questions.append(Ranked(prompt, options, truth, answer.log_probability or 0.0))
            ranks.append(None)
    found = iter(rank(client, model, questions))
    return [next(found) if value is None else value for value in ranks]


def _options_behind(tokens: Tokens, query: Query, prompt: Ids) -> tuple[Ids, ...] | None:
    """The options' ids behind this prompt, or None where one of them changes the prompt's own tokens."""
    split = tokens.split_all([(query.text, option) for option in query.options])
    return tuple(ids for _, ids in split) if all(p == prompt for p, _ in split) else None
