"""The paper's eight models: what can be told of each before it is downloaded. Knows no torch.

PAPER_MODELS["Qwen/Qwen2.5-1.5B"].gated
model_shape("Qwen/Qwen2.5-1.5B").parameters      # of engine.models.files, which counts them from `fields`
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from engine.fields import Frozen
from engine.models.catalogue import Licence
from engine.plain_yaml import read_yaml

FILE = Path(__file__).with_name("paper_models.yaml")
Line = Annotated[str, Field(max_length=500)]


class Config(Frozen):
    """The fields of a config.json that `engine.models.files.shape_from_config` counts."""

    model_type: Line
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    tie_word_embeddings: bool
    head_dim: int | None = None


class PaperModel(Frozen):
    """A model of the hub.

    gated: whether the hub asks for consent first. parameters: as stated, rounded. numbers: the weights' format.
    beginning: the token in front of every text, '' for none, None where unknown. sources: who says it. unconfirmed:
    what nobody says who could be read.
    """

    title: Line
    kind: Literal["base", "chat"]
    licence: Licence
    gated: bool
    parameters: float
    numbers: Literal["bfloat16", "float16"]
    beginning: Line | None = None
    config: Config
    sources: Annotated[tuple[Line, ...], Field(min_length=1, max_length=20)]
    unconfirmed: Annotated[tuple[Line, ...], Field(max_length=20)] = ()

    @property
    def fields(self) -> dict[str, Any]:
        """Its config.json, as far as it is known."""
        return self.config.model_dump(exclude_none=True)


def _load() -> dict[str, PaperModel]:
    data = read_yaml(FILE.read_text(encoding="utf-8"))
    return {name: PaperModel.model_validate(about) for name, about in data.items()}


PAPER_MODELS = _load()
WEIGHT_BYTES = 2  # of both formats
