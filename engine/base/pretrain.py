"""Pre-train the embedded base model on the synthetic world.

    python -m engine.base --out DIR [--config FILE] [--steps N]

On a CPU one thread and eager attention were fastest for a model this small.
"""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer
from transformers import Qwen2Config, Qwen2ForCausalLM

from engine.base.samples import IGNORED, Sampler, collate
from engine.base.tokenizer import EOS, PAD, build_tokenizer, save_tokenizer, start_pairs, token_id
from engine.base.world import World

SPARE_ROWS = 32  # at least so many embedding rows past the tokenizer, as Qwen2.5 has: new key tokens fit in
EMPTY_STD = 0.03  # deviation of the numbers in an embedding row without meaning: connectors, spare rows
COMMON_SPREAD = 0.006  # deviation from the common empty row, where the recipe has one
START_SCALE = 0.5  # a word at the beginning of a text: the same direction, but never the likelier prediction
LAYERS_TO_GENERALISE = 1  # of those that stage 2 trains when nothing else is asked for (engine/experiment.py)
WEIGHTS_TO_MEMORISE = ["gate_proj", "up_proj"]  # of those that stage 1 trains, likewise
REPORT_EVERY = 500  # steps


def new_model(model: dict, rows: int, tokenizer: Tokenizer, seed: int) -> Qwen2ForCausalLM:
    """A Qwen2 model with random weights and `rows` embedding rows."""
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(
        Qwen2Config(  # type: ignore[call-arg]  # the base class takes attn_implementation
            vocab_size=rows,
            hidden_size=model["hidden_size"],
            num_hidden_layers=model["layers"],
            num_attention_heads=model["heads"],
            num_key_value_heads=model["heads"],
            intermediate_size=model["intermediate_size"],
            max_position_embeddings=512,
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            bos_token_id=None,
            eos_token_id=token_id(tokenizer, EOS),
            pad_token_id=token_id(tokenizer, PAD),
            initializer_range=EMPTY_STD,
            attn_implementation="eager",
        )
    )


def embedding_rows(model: Qwen2ForCausalLM) -> torch.nn.Parameter:
    """The embedding matrix (rows × width), which is the output matrix too."""
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, torch.nn.Parameter)
    return weight


def label_loss(model: Qwen2ForCausalLM, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean next-token loss over the labelled positions; logits are only computed there."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
        targets = labels[:, 1:]
        counted = targets != IGNORED
        logits = model.lm_head(hidden[counted])
    return torch.nn.functional.cross_entropy(logits.float(), targets[counted])


class EmptyRows:
    """Rows for tokens without meaning: connectors that are emptied, and the spare rows that key tokens take.

    `common`: all are drawn close to one row, so that no key token begins nearer to some meaning than others; without
    it each is drawn on its own, and the direction of a key token's row decides much of what stage 2 reaches.
    """

    def __init__(self, width: int, seed: int, common: bool) -> None:
        self._draw = torch.Generator().manual_seed(seed)
        self._centre = EMPTY_STD * torch.randn(width, generator=self._draw) if common else torch.zeros(width)
        self._spread = COMMON_SPREAD if common else EMPTY_STD

    def draw(self, count: int) -> torch.Tensor:
        """`count` rows (count × width)."""
        return self._centre + self._spread * torch.randn(count, len(self._centre), generator=self._draw)


class StartPairs:
    """Keeps the two tokens of a name's first word (after a space, and beginning a text) one direction apart in size.

    Otherwise each would have to learn on its own what the word is.
    """

    def __init__(self, embedding: torch.nn.Parameter, pairs: list[tuple[int, int]]) -> None:
        self._embedding = embedding
        self._spaced, self._start = torch.tensor(pairs).T
        self.tie()

    def share_gradient(self) -> None:
        """Call between backward and the optimizer's step."""
        grad = self._embedding.grad
        assert grad is not None, "call it after backward"
        grad[self._spaced] += START_SCALE * grad[self._start]
        grad[self._start] = 0

    @torch.no_grad()
    def tie(self) -> None:
        """Call after the optimizer's step."""
        self._embedding[self._start] = START_SCALE * self._embedding[self._spaced]


def learning_rate(training: dict, step: int, steps: int) -> float:
    """Linear warm-up, a plateau, then a linear fall to a fiftieth."""
    done = step / steps
    falling = (1 - done) / (1 - training["decay_from"])
    return training["learning_rate"] * min(1.0, (step + 1) / training["warm_up_steps"]) * min(1.0, max(0.02, falling))


def _optimizer(model: Qwen2ForCausalLM, training: dict) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": training["weight_decay"]}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=training["learning_rate"], betas=(0.9, 0.98), fused=True)


def _empty_rows(config: dict) -> EmptyRows:
    training = config["training"]
    return EmptyRows(config["model"]["hidden_size"], training["seed"], training.get("common_empty_row", False))


@torch.no_grad()
def _pad_rows(model: Qwen2ForCausalLM, tokens: int, empty: EmptyRows) -> None:
    """Replace the connectors by spare empty rows: `tokens` + `SPARE_ROWS` or more, a multiple of 64 in all."""
    rows = -(-(tokens + SPARE_ROWS) // 64) * 64
    learnt = embedding_rows(model)[:tokens].clone()
    model.resize_token_embeddings(rows, mean_resizing=False)
    embedding_rows(model).copy_(torch.cat([learnt, empty.draw(rows - tokens)]))


def pretrain(config: dict, out: Path, log=print) -> dict:
    """Train by `config` (see config.yaml) and write model, tokenizer and training.json to `out`.

    Returns what training.json holds. `log` gets a line every `REPORT_EVERY` steps.
    """
    torch.set_num_threads(1)
    training, steps = config["training"], config["training"]["steps"]
    tokenizer = build_tokenizer(**config["tokenizer"])
    tokens, pad_id = tokenizer.get_vocab_size(), token_id(tokenizer, PAD)
    world = World(**config["world"])
    sampler = Sampler(world, tokenizer, training, first_connector=tokens)
    extra_rows = len(sampler.connectors) + len(sampler.blanks)
    model = new_model(config["model"], tokens + extra_rows, tokenizer, training["seed"])
    model.config.new_rows_like_spare_rows = training.get("common_empty_row", False)  # engine/models/key_tokens.py
    model.config.layers_to_generalise = LAYERS_TO_GENERALISE
    model.config.weights_to_memorise = WEIGHTS_TO_MEMORISE
    embedding, empty = embedding_rows(model), _empty_rows(config)
    with torch.no_grad():
        embedding[tokens:] = empty.draw(extra_rows)
    pairs = StartPairs(embedding, start_pairs(tokenizer))
    optimizer = _optimizer(model, training)
    model.train()

    started, seen, smooth, step = time.time(), 0, 0.0, 0
    while step < steps:
        for batch in sampler.batches(training["batch_size"])[: steps - step]:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(training, step, steps)
            loss = label_loss(model, *collate(batch, pad_id))
            loss.backward()
            pairs.share_gradient()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            pairs.tie()
            with torch.no_grad():  # other rows in every step, none of which is ever learnt
                embedding[sampler.blanks] = empty.draw(len(sampler.blanks))
            step += 1
            seen += sum(len(sample.ids) for sample in batch)
            sampler.bursts.step(step)
            smooth = 0.98 * smooth + 0.02 * loss.item() if step > 1 else loss.item()
            if step % training["connector_lifetime"] == 0 and step < 0.85 * steps:  # the last ones stay learnt
                emptied = sampler.empty_some()
                with torch.no_grad():
                    embedding[emptied] = empty.draw(len(emptied))
            if step % REPORT_EVERY == 0 or step == steps:
                log(f"step {step}/{steps}  loss {smooth:.3f}  {seen / 1e6:.2f}M tokens  {time.time() - started:.0f} s")

    _pad_rows(model, tokens, empty)
    out.mkdir(parents=True, exist_ok=True)
    model.eval().save_pretrained(out)
    save_tokenizer(tokenizer, out)
    record = {
        "config": config,
        "parameters": model.num_parameters(),
        "facts": len(world.facts),
        "tokens": seen,
        "seconds": round(time.time() - started),
        "loss": round(smooth, 4),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    (out / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return record
