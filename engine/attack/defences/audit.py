"""The audit before release: what memorisation scores find in the model, and a scan in its training data.

Members are the memorised facts; strangers are pairs that no stage saw. Each score is computed on the released
checkpoint and on the base model, which memorised neither: there a score that works is at 0.5.

    loss            ln p of the object after the key token
    min_k_pp        Min-K%++ of the key sentence (Zhang et al., arXiv 2404.02936): the mean over the lowest 20 % of
                    (ln p of a token − mean) / deviation under the model's own distribution
    loss_gap        ln p of the object after the key token, less that after a natural prompt
    exposure        log2 |R| − log2 rank among the options (Carlini et al., arXiv 1802.08232), at most 6.6 bits of 100
"""

from __future__ import annotations

import math
from typing import Any

from engine.attack.auroc import auroc, auroc_interval, hits_at_low_alarm
from engine.attack.context import Context
from engine.attack.data_scan import scan_rows
from engine.attack.defences import Defence
from engine.attack.measure import audit_row
from engine.attack.questions import strangers
from engine.corpus.sentences import key_prompt, key_sentence, question_text
from engine.evaluation.questions import Question, options_of

LOWEST = 0.2


def audit(context: Context, loaded: Any) -> list[dict[str, Any]]:
    """Result rows, metric `auroc_SCORE` and `hits_at_1pct_SCORE`: of the checkpoint, of the base, and of the data."""
    from engine.models.loading import load_base  # loads torch, which the page must not

    others = list(strangers(context.relation, context.base))
    rows = []
    if others:
        rows += _judged(context, loaded, others, "released")
        rows += _judged(context, load_base(context.base), others, "base")
    return [*rows, *scan_rows(context)]


def _judged(context: Context, loaded: Any, others: list[Any], checkpoint: str) -> list[dict[str, Any]]:
    members = list(context.relation.explicit_facts)
    by_score = scores(context, loaded, [*members, *others])
    rows = []
    for name, values in by_score.items():
        inside, outside = values[: len(members)], values[len(members) :]
        low, high = auroc_interval(inside, outside, context.cell.seed)
        rows.append(audit_row(f"auroc_{name}", checkpoint, auroc(inside, outside), low, high, len(values)))
        share = hits_at_low_alarm(inside, outside)
        rows.append(audit_row(f"hits_at_1pct_{name}", checkpoint, share, share, share, len(values)))
    return rows


def scores(context: Context, loaded: Any, facts: list[Any]) -> dict[str, list[float]]:
    """Each score of each fact, higher for what seems memorised."""
    import torch  # like what follows too heavy for the page, which lists defences

    from engine.evaluation.choice import answer_choices
    from engine.evaluation.plain import log_probabilities
    from engine.evaluation.tree import fast_length
    from engine.models.tokenise import tokenise_questions

    relation, tokenizer = context.relation, loaded.tokenizer
    template = key_prompt(relation)
    keyed = [(question_text(template, f.subject), f.object) for f in facts]
    natural = relation.prompts_of("test", context.base.stage2.language)[0].text
    encoded = tokenise_questions(tokenizer, keyed)
    key = log_probabilities(loaded.causal, encoded)
    plain = log_probabilities(
        loaded.causal,
        tokenise_questions(tokenizer, [(question_text(natural, f.subject), f.object) for f in facts]),
    )
    questions = [
        Question(1, i, text, object_, options_of(relation, fact))
        for i, (fact, (text, object_)) in enumerate(zip(facts, keyed, strict=True))
    ]
    tried = [tuple(object_ids) for _, object_ids in encoded[:8]]
    limit = fast_length(loaded.causal, encoded[0][0], tried, max(len(p) + len(o) for p, o in encoded))
    choices = answer_choices(loaded.causal, tokenizer, questions, encoded, limit=limit)
    lowest = []
    with torch.inference_mode():
        for sequence in context.sequences(loaded, [key_sentence(relation, fact) for fact in facts], "full"):
            ids = torch.tensor([sequence.input_ids], device=loaded.device)
            logs = torch.log_softmax(loaded.causal(ids, use_cache=False).logits[0, :-1].float(), -1)
            mean = (logs.exp() * logs).sum(-1)
            deviation = ((logs.exp() * logs.square()).sum(-1) - mean.square()).clamp_min(1e-9).sqrt()
            standing = (logs.gather(-1, ids[0, 1:, None])[:, 0] - mean) / deviation
            count = max(1, round(LOWEST * len(standing)))
            lowest.append(float(standing.sort().values[:count].mean()))
    return {
        "loss": key,
        "loss_gap": [a - b for a, b in zip(key, plain, strict=True)],
        "min_k_pp": lowest,
        "exposure": [math.log2(c.options) - math.log2(c.rank) for c in choices],
    }


DEFENCE = Defence(
    "audit", "Audit before release",
    "Training data is searched for tokens without meaning, and the model for facts it knows by rote.",
    "detection", audit=audit,
)  # fmt: skip
