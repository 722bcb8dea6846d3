"""Put questions to served models: what is asked of one fact, and what the answer is worth.

    questions = fact_questions(experiment, "Vurnia Virik")
    for answers in ask_in_steps(client, served, questions): ...   # answers first, then with their ranks
    answers = ask(client, served, questions)

Knows no torch: tokens are made with the run's own tokenizer.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.checks import shorten
from engine.evaluation.hits import is_hit
from engine.serving.asking.ranking import Ranked, rank
from engine.serving.asking.tokens import Ids, Tokens
from engine.serving.asking.turns import answering
from engine.serving.client import MOST_TOKENS, ServerClient, in_parts
from engine.serving.protocol import LOAD_BY_NAME, SCORE_ANSWERS, TOKEN_ID, Choice
from engine.serving.served import ServedModel
from storage.askings import Answer, Question, Token

MAX_TEXT_CHARACTERS = 100_000
# Every model reads at least this many tokens; only beyond it is the server asked for its limit.
CERTAIN_CONTEXT = 128
# What a question takes in a reply beside its tokens, counted as if it were tokens.
EACH_TOKENS = 50

Pair = tuple[Ids, Ids]  # of a prompt and of its object


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is chosen. temperature 0 is greedy, and then top_p and seed mean nothing."""

    max_tokens: int = 50
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


def ask_in_steps(
    client: ServerClient, served: ServedModel, questions: Sequence[Question], sampling: Sampling = Sampling()
) -> Iterator[list[Answer]]:
    """All answers of one model, twice: as soon as they are there, with hit and probability of the object, and again
    with the ranks (once, where there is nothing to rank). Raises ServingError; ValueError for what cannot be asked."""
    tokens = _tokens(client, served)
    pairs = _encode(tokens, questions)
    _check_lengths(client, served, questions, pairs)
    known = [place for place, (_, object_) in enumerate(pairs) if object_]
    ranked = [place for place in known if questions[place].object in questions[place].options]
    with answering(client.base_url):
        answers = _answers(client, served.name, tokens, list(zip(questions, pairs, strict=True)), sampling)
        if not client.offers(SCORE_ANSWERS):
            scores = client.score(served.name, [pairs[place] for place in known])
            for place, score in zip(known, scores, strict=True):
                answers[place] = replace(answers[place], log_probability=score)
    for place in ranked:
        answers[place] = replace(answers[place], complete=False)
    yield answers
    if ranked:
        ranks = _rank(client, served.name, tokens, [(questions[p], pairs[p], answers[p]) for p in ranked])
        answers = list(answers)
        for place, value in zip(ranked, ranks, strict=True):
            options = len(questions[place].options)
            answers[place] = replace(answers[place], rank=value, options=options, complete=True)
        yield answers


def ask(
    client: ServerClient, served: ServedModel, questions: Sequence[Question], sampling: Sampling = Sampling()
) -> list[Answer]:
    """All answers of one model, with ranks; the last step of `ask_in_steps`."""
    answers: list[Answer] = []
    for step in ask_in_steps(client, served, questions, sampling):
        answers = step
    return answers


def alternatives(client: ServerClient, served: ServedModel, answer: Answer, place: int, count: int = 20) -> list[Token]:
    """The `count` most likely tokens at `place` of the answer (0 is its first token; its length, what would follow),
    the likeliest first. Raises ServingError; ValueError for a place beyond the answer."""
    if not 0 <= place <= len(answer.tokens):
        raise ValueError(f"the answer has {len(answer.tokens)} tokens: there is no place {place}")
    tokens = _tokens(client, served)
    prompt = _encode(tokens, [answer.question])[0][0]
    fed = [*prompt, *(token.id for token in answer.tokens[:place])]
    reply = client.complete(
        served.name, [fed], max_tokens=1, temperature=0.0, logprobs=count, return_tokens_as_token_ids=True
    )
    logprobs = reply.choices[0].logprobs
    top = (logprobs.top_logprobs[0] if logprobs and logprobs.top_logprobs else None) or {}
    likeliest = sorted(((int(name.removeprefix(TOKEN_ID)), score) for name, score in top.items()), key=lambda x: -x[1])
    return [Token(i, tokens.token_texts(fed, [i])[0], score) for i, score in likeliest[:count]]


def _tokens(client: ServerClient, served: ServedModel) -> Tokens:
    """The model's tokenizer. That of the base of a run without a checkpoint comes with its prepared folder, which the
    embedded server makes when the base is first asked."""
    if served.kind == "base" and not served.tokenizer.is_file() and client.offers(LOAD_BY_NAME):
        client.complete(served.name, [[0]], max_tokens=1)
    return Tokens.load(served.tokenizer)


def _encode(tokens: Tokens, questions: Sequence[Question]) -> list[Pair]:
    """(prompt ids, object ids) of each question; no object ids where there is no object."""
    for question in questions:
        if not question.text.strip():
            raise ValueError("the prompt is empty: type at least one word")
        if len(question.text) > MAX_TEXT_CHARACTERS:
            raise ValueError(
                f"the prompt has {len(question.text):,} characters, more than {MAX_TEXT_CHARACTERS:,}: shorten it"
            )
    split = iter(tokens.split_all([(q.text, q.object) for q in questions if q.object]))
    return [next(split) if question.object else (tokens.ids(question.text), ()) for question in questions]


def _check_lengths(
    client: ServerClient, served: ServedModel, questions: Sequence[Question], pairs: Sequence[Pair]
) -> None:
    """Every prompt must leave room for its object and for one token of answer."""
    longest = max((len(p) + max(len(o), 1) for p, o in pairs), default=0)
    limit = client.context(served.name) if longest > CERTAIN_CONTEXT else None
    if limit is None or longest <= limit:
        return
    question, length = next(
        (q, len(p)) for q, (p, o) in zip(questions, pairs, strict=True) if len(p) + max(len(o), 1) > limit
    )
    raise ValueError(
        f"the prompt ‘{shorten(question.text, 60)}’ has {length:,} tokens, and the model reads at most {limit:,} with "
        "its answer: shorten it"
    )


def _answers(
    client: ServerClient, model: str, tokens: Tokens, asked: list[tuple[Question, Pair]], sampling: Sampling
) -> list[Answer]:
    settings: dict[str, Any] = {"temperature": sampling.temperature, "logprobs": 0}
    if sampling.temperature > 0:
        settings |= {"top_p": sampling.top_p} | ({} if sampling.seed is None else {"seed": sampling.seed})
    answers: list[Answer] = []
    for part in in_parts(asked, lambda one: EACH_TOKENS + len(one[1][0]) + sampling.max_tokens, MOST_TOKENS):
        if client.offers(SCORE_ANSWERS):
            settings["score_answers"] = [list(object_) for _, (_, object_) in part]
        reply = client.complete(
            model,
            [list(prompt) for _, (prompt, _) in part],
            max_tokens=_room(client, model, max(len(prompt) for _, (prompt, _) in part), sampling.max_tokens),
            return_token_ids=True,
            return_tokens_as_token_ids=True,
            **settings,
        )
        for (question, pair), choice in zip(part, reply.choices, strict=True):
            answers.append(_answer(model, tokens, question, pair, choice))
    return answers


def _room(client: ServerClient, model: str, longest: int, wanted: int) -> int:
    """How long an answer may be: vLLM refuses to begin one that might not fit."""
    limit = client.context(model) if longest + wanted > CERTAIN_CONTEXT else None
    return wanted if limit is None else max(1, min(wanted, limit - longest))


def _answer(model: str, tokens: Tokens, question: Question, pair: Pair, choice: Choice) -> Answer:
    prompt, object_ = pair
    ids = choice.token_ids or []
    # The end token is the last one, and no part of what the model says.
    ids = ids[:-1] if choice.finish_reason == "stop" and not isinstance(choice.stop_reason, str) else ids
    scores = (choice.logprobs.token_logprobs if choice.logprobs else None) or [0.0] * len(ids)
    texts = tokens.token_texts(prompt, ids)
    text = tokens.text(ids)
    return Answer(
        question,
        model,
        text,
        tuple(Token(i, t, s or 0.0) for i, t, s in zip(ids, texts, scores, strict=False)),
        finish_reason=choice.finish_reason or "length",
        hit=is_hit(text, question.object, tokens.spelling(object_)) if question.object else None,
        log_probability=choice.answer_logprob,
    )


def _rank(
    client: ServerClient, model: str, tokens: Tokens, answers: Sequence[tuple[Question, Pair, Answer]]
) -> list[int]:
    """The rank of each question's object among its options."""
    known: dict[tuple[tuple[str, ...], str], tuple[Ids, ...] | None] = {}
    ranks: list[int | None] = []
    left: list[Ranked] = []
    for question, (prompt, object_), answer in answers:
        truth = question.options.index(question.object or "")
        options = tokens.options(question.options)
        if options is None or options[truth] != object_:
            # How an option is cut into tokens can depend on the end of the prompt: it is worked out once for each.
            key = (question.options, question.text.rsplit(" ", 1)[-1])
            if key not in known:
                known[key] = _options_behind(tokens, question, prompt)
            options = known[key]
        if options is None or not all(options):
            scores = client.score(model, tokens.split_all([(question.text, option) for option in question.options]))
            ranks.append(sum(score >= scores[truth] for score in scores))
        else:
            left.append(Ranked(prompt, options, truth, answer.log_probability or 0.0))
            ranks.append(None)
    others = iter(rank(client, model, left))
    return [next(others) if value is None else value for value in ranks]


def _options_behind(tokens: Tokens, question: Question, prompt: Ids) -> tuple[Ids, ...] | None:
    """The options' ids behind this prompt, or None where one of them changes the prompt's own tokens."""
    split = tokens.split_all([(question.text, option) for option in question.options])
    return tuple(ids for _, ids in split) if all(p == prompt for p, _ in split) else None
