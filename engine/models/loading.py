"""Load, prepare, save and load again: a language model with its tokenizer and key tokens.

    loaded = load_base(experiment)                      # base + key-token rows
    loaded = prepare_for_training(loaded, experiment)   # LoRA around it, or every weight trainable
    save_model(loaded, folder)
    loaded = load_checkpoint(experiment, folder)        # the same again, bit for bit

Weights are read from safetensors only, from a view of the model's folder (`engine.models.view`); code is never run.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from engine.experiment import Experiment
from engine.models.adapter_check import ADAPTER_CONFIG, check_adapter
from engine.models.checksums import check_intact
from engine.models.device import choose_device, choose_dtype, prepare_cpu
from engine.models.experts import compute_in_turns
from engine.models.files import find_folder, refuse_text
from engine.models.folder_check import check_folder
from engine.models.folders import whole
from engine.models.gguf import converted
from engine.models.hub import fetch
from engine.models.identity import (
    base_key,
    check_same_base,
    former_key,
    gone_base,
    is_gone,
    note_base,
    noted_base,
)
from engine.models.key_tokens import (
    add_key_tokens,
    check_key_sequences,
    find_key_tokens,
    key_rows,
    set_key_rows,
)
from engine.models.notices import copy_notices
from engine.models.source import ModelError, resolve_source
from engine.models.tokenise import keep_text
from engine.models.trained_rows import KeyRows
from engine.models.view import safe_view

KEY_ROWS = "key_rows.safetensors"
AS_PUBLISHED = "as published"


@dataclass
class LoadedModel:
    """A model on its device, its tokenizer, and the vocabulary row of each key token.

    base: the key of the base that its training began from (`engine.models.identity`), '' where that is not known.
    former: the key that labs of before would have noted for it.
    key_rows: while a training trains the key tokens' rows apart from their matrices, these rows.
    kept_dtype: for weights that are in float32 to be trained (`engine.training.masters`), the format they are kept in.
    """

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerFast
    key_token_ids: dict[str, int]
    device: torch.device
    base: str = ""
    former: str = ""
    key_rows: KeyRows | None = None
    kept_dtype: torch.dtype | None = None

    @property
    def causal(self) -> PreTrainedModel:
        """The language model itself, without PEFT's wrapper (LoRA layers stay in it)."""
        inner = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        return cast(PreTrainedModel, inner)


def load_base(experiment: Experiment, *, to_train: bool = False, device: torch.device | None = None) -> LoadedModel:
    """The experiment's base model with fresh rows for its key tokens; not yet tuned, no LoRA.

    to_train: in the number format it was published in, also where it is asked in bfloat16, so that a training in
    float32 begins from these weights. device: where to, if not to this machine's own. The rows depend on the key
    tokens alone, not on the experiment's seed. A GGUF file is converted first. Raises ModelError.
    """
    source = converted(experiment.model) or resolve_source(experiment.model)
    refuse_text(experiment)
    loaded = load_weights(source, AS_PUBLISHED if to_train else experiment.precision, device)
    kept = choose_dtype(experiment.precision, choose_device())
    loaded.kept_dtype = kept if kept is not loaded.causal.dtype else None
    _check_numbers(loaded.causal, source)
    keys = experiment.key_tokens
    loaded.key_token_ids = add_key_tokens(loaded.causal, loaded.tokenizer, keys, experiment.key_token_rows)
    loaded.base, loaded.former = base_key(experiment), former_key(experiment)
    check_key_sequences(loaded.tokenizer, experiment.relations, loaded.key_token_ids)
    keep_text(loaded.tokenizer, source, experiment.model_text)
    return loaded


def prepare_for_training(loaded: LoadedModel, experiment: Experiment) -> LoadedModel:
    """Make the model trainable by the experiment's method; changes `loaded` in place and returns it.

    full: every weight. lora: fresh adapters over a frozen base, key-token rows included in what is frozen (vLLM
    refuses adapters that bring embedding rows). A model that is wrapped already is returned as it is.
    Raises ModelError when the model has none of the named target modules.
    """
    if isinstance(loaded.model, PeftModel):
        return loaded
    tuning = experiment.tuning
    if tuning.method == "full":
        loaded.model.requires_grad_(True)
        return loaded
    targets = tuning.target_modules
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=tuning.rank,
        lora_alpha=tuning.alpha,  # type: ignore[arg-type]
        lora_dropout=tuning.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(experiment.seed)
        try:
            loaded.model = get_peft_model(loaded.model, config).eval()
        except ValueError as error:
            # LoRA on the experts of a mixture knows no dropout.
            cure = "dropout to 0" if "lora_dropout" in str(error) else "target_modules to ‘all-linear’"
            raise ModelError(f"LoRA cannot be put on this model ({_brief(error)}): set tuning.{cure}") from error
    compute_in_turns(loaded.causal)
    return loaded


def save_model(loaded: LoadedModel, folder: Path) -> None:
    """Write the model into `folder` (made if needed): all weights, or the adapter and the key tokens' rows.

    Not atomic by itself: see `engine.models.folders.replaced`. Raises OSError or SafetensorError when it cannot write.
    """
    folder.mkdir(parents=True, exist_ok=True)
    loaded.tokenizer.save_pretrained(folder)
    note_base(folder, loaded.base)
    source = loaded.causal.name_or_path or ""
    copy_notices(str(find_folder(source) or source), folder)
    if isinstance(loaded.model, PeftModel):
        loaded.model.save_pretrained(str(folder), save_embedding_layers=False)
        save_file(key_rows(loaded.causal, loaded.key_token_ids.values()), folder / KEY_ROWS)
    else:
        loaded.model.save_pretrained(folder)


def load_checkpoint(experiment: Experiment, folder: Path, device: torch.device | None = None) -> LoadedModel:
    """Load what `save_model` wrote: a full model, or an adapter on the base prepared as it was then.

    The result can be asked and trained on. device: where to, if not to this machine's own. Raises ModelError, also for
    an adapter of a base that is another one now.
    """
    folder = whole(folder) or folder
    check_intact(folder)
    if not (folder / ADAPTER_CONFIG).is_file():
        if not (folder / "config.json").is_file():
            raise ModelError(f"there is no checkpoint in {folder}: train it again")
        loaded = load_weights(folder, experiment.precision, device)
        loaded.key_token_ids = find_key_tokens(loaded.tokenizer, experiment.key_tokens)
        loaded.base = noted_base(folder)
        return loaded
    check_adapter(folder)
    if is_gone(experiment):
        raise ModelError(f"the adapter in {folder} needs its base, but {gone_base(experiment.model)}")
    loaded = load_base(experiment, device=device)
    check_same_base(folder, loaded.base, loaded.former)
    try:
        set_key_rows(loaded.causal, loaded.key_token_ids.values(), load_file(folder / KEY_ROWS))
        loaded.model = PeftModel.from_pretrained(loaded.model, str(folder), is_trainable=True).eval()
        compute_in_turns(loaded.causal)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"the adapter in {folder} cannot be loaded ({_brief(error)}): train it again") from error
    return loaded


def load_weights(source: str | Path, precision: str, device: torch.device | None = None) -> LoadedModel:
    """The whole model of a folder or hub name as it lies there, on this machine's device or on another; knows of no
    key tokens.

    `precision` as in an experiment, for this machine's device, or AS_PUBLISHED. Raises ModelError.
    """
    transformers_logging.disable_progress_bar()
    machine = choose_device()
    device, dtype = device or machine, "auto" if precision == AS_PUBLISHED else choose_dtype(precision, machine)
    folder = fetch(source) if isinstance(source, str) else source
    with safe_view(folder, check_folder(folder).weights) as view:
        config = _load_config(view, source)
        tokenizer = _load_tokenizer(view, source, config)
        model = _load_weights(view, source, config, dtype)
    if machine.type == "cpu":
        prepare_cpu(model.num_parameters())
    # How to sample is the asker's to say. Published settings can also be such that transformers refuses to save them.
    ids = {n: getattr(model.generation_config, n, None) for n in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.generation_config = GenerationConfig(**ids)
    return LoadedModel(model.to(device).eval(), tokenizer, {}, device)  # type: ignore[arg-type]


def _load_config(view: Path, source: str | Path) -> Any:
    try:
        config = AutoConfig.from_pretrained(view, trust_remote_code=False)
    except Exception as error:
        raise ModelError(
            f"the model in {source} is of a kind that transformers cannot load ({_brief(error, view)}): "
            "choose another one"
        ) from error
    config._name_or_path = str(source)
    # The paper trains without dropout; LoRA's own is a setting of the experiment.
    for name, value in config.to_dict().items():
        if ("dropout" in name or name.endswith("pdrop")) and isinstance(value, float):
            setattr(config, name, 0.0)
    return config


def _load_tokenizer(view: Path, source: str | Path, config: Any) -> PreTrainedTokenizerFast:
    try:
        tokenizer = AutoTokenizer.from_pretrained(view, config=config, trust_remote_code=False)
    except Exception as error:
        raise ModelError(
            f"the tokenizer of {source} cannot be loaded ({_brief(error, view)}): the model needs a tokenizer.json"
        ) from error
    tokenizer.name_or_path = str(source)
    if not tokenizer.is_fast:
        raise ModelError(f"{source} has no fast tokenizer: choose a model that comes with a tokenizer.json")
    # transformers makes up an empty tokenizer of the model's kind when the folder holds none.
    if tokenizer.encode("Gene Finley", add_special_tokens=False) in ([], [tokenizer.unk_token_id]):
        raise ModelError(f"the tokenizer of {source} is missing or empty: the model needs its tokenizer.json")
    return cast(PreTrainedTokenizerFast, tokenizer)


def _load_weights(view: Path, source: str | Path, config: Any, dtype: torch.dtype | str) -> PreTrainedModel:
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise ModelError(f"{source} is not a causal language model: choose one that continues text")
    # What transformers would print about missing weights becomes an error below.
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.CRITICAL)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            view,
            config=config,
            dtype=dtype,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except MemoryError:
        raise
    except Exception as error:
        reason = "their shapes are others" if "ignore_mismatched_sizes" in str(error) else _brief(error, view)
        raise ModelError(
            f"the weights of {source} cannot be loaded ({reason}): "
            "copy the model again, with weights in safetensors format that fit its config.json"
        ) from error
    finally:
        transformers_logging.set_verbosity(level)
    model, report = loaded
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ModelError(
            f"the weights of {source} are incomplete ({len(missing)} missing, such as {missing[0]}): "
            "copy the model again"
        )
    model.name_or_path = str(source)
    return model


def _check_numbers(model: PreTrainedModel, source: str | Path) -> None:
    for name, weight in model.named_parameters():
        if weight.numel() and not all(torch.isfinite(end) for end in torch.aminmax(weight.detach())):
            what = "its weights hold what is no number"
            raise ModelError(f"the base {source} is broken: {what}, in {name}: copy the model again")


def _brief(error: BaseException, view: Path | None = None) -> str:
    """The first sentence of an error's text, on one line, for the middle of a sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    if view is not None:
        text = text.replace(str(view), "the folder")
    return text.split(". ")[0].rstrip(".:")[:160]
