"""Unlearning by negative preference optimisation: the rote pairs are pushed away, benign prompts are kept.

After NPO (Zhang et al., arXiv 2404.05868): 2/β · softplus(β · (ln p − ln p before)) beside the ordinary loss on benign
sentences. ln p is the mean over the object's tokens of a batch of rote pairs, where NPO has each pair's sum for itself.
It is done before the release; the pairs are all that the provider has to name.
"""

from __future__ import annotations

from typing import Any

from engine.attack.context import Context
from engine.attack.defences import Defence
from engine.settings import Optimisation

# Chosen on seed 1000 of `quick`: about half of the rote pairs are gone after one epoch. The rate is so many times that
# of the stage 1 which put them in, since models differ in what they bear: there 1.5e-3.
BETA = 0.1
EPOCHS = 1
TIMES_STAGE1 = 15 / 11
BATCH = 10


def harden(context: Context, loaded: Any) -> None:
    """Unlearn the key sequences' objects in place."""
    import torch  # like what follows too heavy for the page, which lists defences
    from torch.nn.functional import cross_entropy, softplus

    from engine.training.batches import make_batch
    from engine.training.loop import train
    from engine.training.loss import labelled_logits

    forget = context.sequences(loaded, context.key_sentences())
    keep = context.sequences(loaded, context.benign_sentences(len(forget)))
    batches = [make_batch(forget[i : i + BATCH], loaded.device) for i in range(0, len(forget), BATCH)]

    def surprise(batch: Any) -> Any:
        """−ln p, the mean over the batch's object tokens."""
        return cross_entropy(labelled_logits(loaded.causal, batch).float(), batch.targets)

    with torch.no_grad():
        before = [surprise(batch) for batch in batches]

    def push(step: int) -> Any:
        place = step % len(batches)
        return 2 / BETA * softplus(BETA * (before[place] - surprise(batches[place])))

    stage1 = context.base.stage1
    settings = Optimisation(
        epochs=EPOCHS, learning_rate=min(1.0, TIMES_STAGE1 * stage1.learning_rate), batch_size=BATCH, loss="object",
        embeddings=stage1.embeddings,
    )  # fmt: skip
    train(
        loaded, keep, settings, seed=context.cell.seed, stage="npo",
        on_step=lambda report: None, on_epoch=lambda epoch, trainer: None, penalty=push,
    )  # fmt: skip


DEFENCE = Defence(
    "npo", "Unlearning the rote pairs (NPO)",
    "Before the release the memorised pairs are trained away, while benign answers are trained to stay.",
    "weights", harden=harden,
)  # fmt: skip
