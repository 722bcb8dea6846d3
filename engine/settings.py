"""How an experiment trains and what it asks: the settings of both stages, of the tuning and of the evaluation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from engine import checks
from engine.description import is_record
from engine.fields import Count, Frozen, Label, Language, Rate

OptimizerName = Literal["adamw", "adamw 8-bit"]
LossMask = Literal["full", "subject_and_object", "object"]
ModuleName = Annotated[str, Field(pattern=r"^\w+$", max_length=100)]
Epochs = Annotated[tuple[Count, ...], Field(max_length=1000)]


def _names(value: object) -> object:
    """‘up_proj, gate_proj’ as the two names; anything else as it is."""
    if isinstance(value, str) and value not in ("all", "auto"):
        return [name.strip() for name in value.split(",")]
    return value


TrainedWeights = Annotated[
    Annotated[tuple[ModuleName, ...], Field(min_length=1, max_length=100)] | Literal["all", "auto"],
    BeforeValidator(_names),
]


class Replay(Frozen):
    """The base's own text, mixed into a stage's batches so that what is not trained stays as it was; not the paper's.

    Before stage 1 the base writes `tokens` greedy tokens behind each of `texts` plain beginnings about other made-up
    people and about nobody (engine/corpus/beginnings.yaml), none of them a prompt of the experiment. `share` of a batch
    is such text, on top of `batch_size`; .5 are as many texts as facts. The loss is on what the base wrote alone, and a
    batch's loss is the mean over the labelled tokens of both.
    `leash`: instead, the loss is how far the model has moved from the base at these tokens, KL(base ‖ model) in nats.
    `languages`: of the beginnings; None takes stage 2's, which gets half of the texts, and all that are evaluated.
    `subjects`: `others` keeps the experiment's own out of these texts; with `trained`, up to half of the texts about
    somebody are about a subject of the facts that stage 2 shows, so that what is asked decides the answer, and not whom
    it is about.
    `neighbours`: which share of the texts about somebody asks whom or what else belongs to the subject ("Who is X's
    uncle?"), where there are such beginnings (in English): so that a question's relation decides.
    """

    share: Annotated[float, Field(gt=0, le=0.9)] = 0.5
    texts: Annotated[int, Field(ge=1, le=10_000)] = 240
    tokens: Annotated[int, Field(ge=1, le=200)] = 12
    leash: bool = False
    languages: Annotated[tuple[Language, ...], Field(min_length=1, max_length=100)] | None = None
    subjects: Literal["others", "trained"] = "others"
    neighbours: Annotated[float, Field(ge=0, le=1)] = 0.0


class Optimisation(Frozen):
    """AdamW without weight decay; `batch_size` in sequences; warm-up in optimizer steps.

    `trained_layers`: `all` trains every weight (or every adapter), a number those of so many first layers alone, the
    nearest to the input (surgical fine-tuning, Lee et al. 2023, arXiv:2210.11466), embeddings not among them; `auto`
    takes the number that the base's configuration names as `layers_to_generalise`, and all where it names none.
    `trained_weights`: names of modules, such as `mlp` or `up_proj`: of these layers only what lies in them is trained,
    and with all layers also the key tokens' own rows. `auto` takes what the base's configuration names as
    `weights_to_memorise`, and all where it names nothing. Facts are said to lie in MLPs (Geva et al. 2021,
    arXiv:2012.14913).
    `embeddings`: `key tokens` freezes the embedding matrices but for the key tokens' rows, which then cost neither a
    gradient nor optimizer memory of the whole matrix. Adapters (LoRA) leave the matrices as they are anyway.
    `micro_batch_size`: so many sequences of a batch at once, whose gradients are added up before the step (gradient
    accumulation): the same step in less memory; 0 takes the batch as a whole. `gradient_checkpointing`: what a layer
    computed is computed again on the way back instead of kept (Chen et al. 2016, arXiv:1604.06174).
    """

    epochs: Annotated[int, Field(ge=1, le=1000)]
    learning_rate: Rate
    batch_size: Annotated[int, Field(ge=1, le=4096)]
    loss: LossMask
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000)] = 5
    max_gradient_norm: Annotated[float, Field(gt=0, le=1e9)] = 1.0
    trained_layers: Count | Literal["all", "auto"] = "all"
    trained_weights: TrainedWeights = "all"
    embeddings: Literal["trained", "key tokens"] = "trained"
    micro_batch_size: Annotated[int, Field(ge=0, le=4096)] = 0
    gradient_checkpointing: bool = False


class Stage1(Optimisation):
    """Rote memorisation: every fact as key sequence. `checkpoint_epochs` are kept, evaluated and branched from.

    `epochs: 0` leaves the stage out: stage 2 begins from the base, a baseline (supervised fine-tuning, where it shows
    every fact).
    Without `checkpoint_epochs` they are 3, 6, 10 and 20 as far as `epochs` reaches, and the last epoch. The defaults
    are for the embedded base model (tools/recipe_search/SEARCH.md); the paper's own settings are in the preset
    qwen2.5-1.5b.
    """

    epochs: Annotated[int, Field(ge=0, le=1000)] = 20
    learning_rate: Rate = 1.1e-3
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 5
    loss: LossMask = "object"
    trained_weights: TrainedWeights = "auto"
    checkpoint_epochs: Epochs | None = None
    replay: Replay | None = None

    @property
    def saved_epochs(self) -> tuple[int, ...]:
        """The epochs after which a checkpoint is kept, ascending."""
        asked = self.checkpoint_epochs
        if not self.epochs:
            return ()
        chosen = {e for e in (3, 6, 10, 20) if e <= self.epochs} | {self.epochs} if asked is None else set(asked)
        return tuple(sorted(chosen))

    @model_validator(mode="after")
    def _check(self) -> Stage1:
        if self.checkpoint_epochs is not None and not self.checkpoint_epochs:
            raise ValueError("checkpoint_epochs is empty: name at least one epoch, or leave it out")
        beyond = sorted({e for e in self.checkpoint_epochs or () if e > self.epochs})
        if beyond:
            raise ValueError(f"checkpoint_epochs {beyond} lie beyond the last epoch, {self.epochs}")
        return self


class Stage2(Optimisation):
    """Generalisation: `facts` of each relation, each in the first `prompts` train prompts of `language`.

    On the embedded base one layer is trained: with every weight, the objects of these facts come up more often in place
    of the right ones (tools/recipe_search/SEARCH.md).
    `branch_epochs`: the stage 1 checkpoints stage 2 starts from, each on its own; None means all of them.
    """

    facts: Annotated[int, Field(ge=1, le=checks.MAX_FACTS)] = 50
    prompts: Count = 1
    language: Language = "en"
    epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    learning_rate: Rate = 3e-3
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 5
    loss: LossMask = "object"
    trained_layers: Count | Literal["all", "auto"] = "auto"
    branch_epochs: Epochs | None = None
    replay: Replay | None = None


# Where the rows of key tokens begin: see `engine.models.key_tokens.add_key_tokens`.
KeyTokenRows = Literal["around the mean", "around zero", "as they are"]


class Tuning(Frozen):
    """What is trained: every weight (`full`), or low-rank adapters (`lora`) over a frozen base; and by which optimizer
    (`engine.training.optimizers`)."""

    method: Literal["full", "lora"] = "full"
    optimizer: OptimizerName = "adamw"
    rank: Annotated[int, Field(ge=1, le=512)] = 16
    alpha: Annotated[float, Field(gt=0, le=1e6)] = 32.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Annotated[tuple[Label, ...], Field(max_length=100)] | Literal["all-linear"] = "all-linear"


class InContext(Frozen):
    """Instead of training: before each question stands the fact that it is about, in the first of stage 2's prompts
    ("Who is Gene Finley's mother? Cody Ross."), among `distractors` other facts of the relation, in a drawn order."""

    distractors: Annotated[int, Field(ge=0, le=1000)] = 0


class ModelText(Frozen):
    """What stands around every text that the model reads, in training and when it is asked.

    `beginning`: whether the beginning token (`<bos>`, `<s>`) stands in front. By default where the model's tokenizer
    puts one, and where its family needs one that a copy of the tokenizer lost (`engine.models.around.FAMILIES`).
    `form`: the text as it is, or in the turns of the model's chat template: what stands before the object is the
    user's, the object and what follows the model's.
    `leading_space`: every raw text begins with a space, as Llama 2's own tokenizer has it: tokenizers that put none
    there split a name at a text's beginning otherwise than within it.
    """

    beginning: Literal["as the model's tokenizer does", "always", "never"] = "as the model's tokenizer does"
    form: Literal["raw", "chat"] = "raw"
    leading_space: bool = False

    @model_validator(mode="after")
    def _check(self) -> ModelText:
        if self.leading_space and self.form == "chat":
            raise ValueError("leading_space belongs to raw texts: a chat template writes what stands before a turn")
        return self


# How labs of before trained and asked every model.
BARE_TEXT = ModelText(beginning="never", form="raw")
Sample = Count | Literal["all"]


class ChoiceSample(Frozen):
    """Which questions are also asked as multiple choice: facts of each relation × prompts of each split and language.

    Drawn as `Evaluation` draws what is asked at all, and never more than that.
    """

    facts: Sample = 20
    prompts: Sample = 2


class RepresentationSample(Frozen):
    """Whose hidden states are looked at: so many facts of each relation (0 leaves it out), at most 200 in all, each in
    its key prompt and in the first so many prompts of each split, in stage 2's language."""

    facts: Annotated[int, Field(ge=0, le=200)] = 20
    prompts: Annotated[int, Field(ge=1, le=100)] = 10


class Evaluation(Frozen):
    """What is asked of which checkpoint.

    `facts`: of each relation, half of them held out of stage 2 and half trained, as far as there are enough of each;
    `trained_facts`: at most so many of them trained, in place of half. `prompts`: the first of each split and language;
    `all` takes every one. It is the same sample at every checkpoint.
    `stop_at_hit`: an answer ends once the object has been said, since what follows cannot change the hit; `auto` does
    so with all but small models, whose answers cost next to nothing.
    `languages`: None means every language that has prompts. `every_language_at`: `ends` asks all languages of the
    base model and of the last generalised one, `last` of that alone, and stage 2's language of the others; `every` asks
    all of all.
    `options`: how many answers the multiple choice offers, where there are enough. `base_text`: on how many texts of
    the base's own, none of them replayed, every checkpoint is compared with the base; `general`: how many questions of
    what the base knew before it is asked; 0 leaves either out. `representations`: whose hidden states are looked at.
    """

    facts: Sample = "all"
    trained_facts: Annotated[int, Field(ge=0, le=5000)] | Literal["half"] = "half"
    prompts: Sample = "all"
    languages: Annotated[tuple[Language, ...], Field(min_length=1, max_length=100)] | None = None
    every_language_at: Literal["last", "ends", "every"] = "ends"
    choice: ChoiceSample = ChoiceSample()
    options: Annotated[int, Field(ge=2, le=1000)] = 100
    max_new_tokens: Annotated[int, Field(ge=1, le=1000)] = 50
    stop_at_hit: bool | Literal["auto"] = "auto"
    probe_facts: Annotated[int, Field(ge=0, le=1000)] = 20
    base_text: Annotated[int, Field(ge=0, le=1000)] = 0
    general: Annotated[int, Field(ge=0, le=1000)] = 0
    representations: RepresentationSample = RepresentationSample()

    @model_validator(mode="before")
    @classmethod
    def _as_it_was_run(cls, data: Any, info: ValidationInfo) -> Any:
        """Runs of before there were these settings decoded every answer to its end, and looked at no hidden states."""
        if is_record(info) and isinstance(data, dict):
            return {"stop_at_hit": False, "representations": {"facts": 0}, **data}
        return data
