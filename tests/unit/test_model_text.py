"""What a model needs around a text: each family's tokens, alike wherever the lab makes tokens of a text."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, processors
from transformers import AutoTokenizer, Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

from app.design.check import examine
from app.design.draft import from_experiment
from app.design.form import form_values
from app.design.show import examples
from app.design.text import pieces, text_words
from app.shared.render import part
from engine.attack.context import Context
from engine.corpus.resolve import resolve
from engine.corpus.sentences import stage1_sentences, stage2_sentences
from engine.estimate import token_counter
from engine.evaluation.choice import encode_options
from engine.evaluation.evaluate import _encode, check_lengths
from engine.evaluation.questions import questions_for
from engine.execution.sayable import loaded_speller
from engine.experiment import Experiment
from engine.models.around import NOTHING, around_beside, around_of
from engine.models.chat import turns_of
from engine.models.files import known_around, text_problems
from engine.models.identity import base_key
from engine.models.loading import LoadedModel, load_base, load_checkpoint, prepare_for_training, save_model
from engine.models.source import ModelError
from engine.models.spelling import file_speller
from engine.models.tokenise import around_in, tokenise, tokenise_prompts, tokenise_questions
from engine.serving.asking.tokens import Tokens
from engine.serving.embedded.replies import CompletionJob
from engine.serving.protocol import CompletionRequest
from engine.settings import ModelText, Tuning
from engine.training.sequences import IGNORED, stage1_sequences, stage2_sequences
from tests.unit.tiny_models import SHAPE, build_llama, build_qwen2, byte_level_tokenizer, metaspace_tokenizer
from tests.unit.tiny_models import tiny_experiment as tiny

PROMPT = "Who is the mother of Gene Finley?"
CHATML = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<|im_start|>system\nBe brief.<|im_end|>\n"
    "{% endif %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA2 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] | trim }} [/INST]"
    "{% else %} {{ m['content'] | trim }} {{ eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{{- bos_token }}{%- if not date_string is defined %}{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}"
    "<|start_header_id|>system<|end_header_id|>\n\nToday Date: {{ date_string }}<|eot_id|>"
    "{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim"
    " + '<|eot_id|>' }}{% endfor %}"
)
TURNS = ("<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "[INST]", "[/INST]")


def settings(folder: Path, **changes: Any) -> Path:
    """Settings of a tokenizer put in, or left out where the value is None."""
    file = folder / "tokenizer_config.json"
    data = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in data.items() if value is not None}))
    return folder


def put(folder: Path, tokenizer: Tokenizer, model: Any) -> Path:
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    return folder


def build_gemma(parent: Path) -> Path:
    """A Gemma 3 as it is read from a GGUF file: its tokenizer names <bos>, and adds none."""
    tokenizer = byte_level_tokenizer()
    tokenizer.add_special_tokens(["<bos>", "<eos>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    config = Gemma3TextConfig(vocab_size=512, head_dim=8, **{**SHAPE, "max_position_embeddings": 128})
    folder = put(parent / "gemma", tokenizer, Gemma3ForCausalLM(config))
    return settings(folder, bos_token="<bos>", eos_token="<eos>")


def build_llama3(parent: Path) -> Path:
    """Like Llama 3's: byte-level, its post-processor moves offsets, then adds the beginning token."""
    tokenizer = byte_level_tokenizer()
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", *TURNS[2:5]])
    number = tokenizer.token_to_id("<|begin_of_text|>")
    first = processors.TemplateProcessing(single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", number)])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), first])
    config = LlamaConfig(vocab_size=512, **{**SHAPE, "max_position_embeddings": 256})
    folder = put(parent / "llama3", tokenizer, LlamaForCausalLM(config))
    template = {"chat_template": LLAMA3}
    return settings(folder, bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>", **template)


def build_llama2(parent: Path) -> Path:
    """Like Llama 2's: sentencepiece's spaces, its settings say that it adds <s>."""
    folder = build_llama(parent, max_position_embeddings=128)
    return settings(
        folder, tokenizer_class="LlamaTokenizer", add_bos_token=True, add_eos_token=False, chat_template=LLAMA2
    )


def build_chat(parent: Path) -> Path:
    """Like Qwen2's, with the turns of ChatML."""
    folder = build_qwen2(parent, max_position_embeddings=256)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in TURNS[:2]])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(CHATML)
    return folder


FAMILIES = {"gemma": (build_gemma, "<bos>"), "llama2": (build_llama2, "<s>"), "llama3": (build_llama3,
    "<|begin_of_text|>"), "qwen2": (build_qwen2, ""), "chatml": (build_chat, "")}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.manual_seed(0)
    return {name: build(tmp_path_factory.mktemp(name)) for name, (build, _) in FAMILIES.items()}


def experiment_on(folder: Path, **text: Any) -> Experiment:
    return resolve(tiny(folder, model_text=text, stage1={"epochs": 1, "loss": "full"}))


def asked_by_server(tokenizer: Any, text: str, **how: Any) -> list[int]:
    class Holder:
        context, vocabulary = 10_000, 1_000_000

    Holder.tokenizer = tokenizer  # type: ignore[attr-defined]
    job = CompletionJob(CompletionRequest(model="base", prompt=text, **how), "base")
    return list(job._ids(Holder())[0])  # type: ignore[arg-type]


def check_alike(experiment: Experiment, loaded: LoadedModel, saved: Path, merged: int = 0) -> None:
    """Every place that makes tokens of a text makes the same ones. merged: so many may lie over a template's edge."""
    theirs = Tokens.load(saved / "tokenizer.json")
    relation = experiment.relations[0]
    for sentences, sequences in (
        (stage1_sentences(relation), stage1_sequences(experiment, loaded)),
        (stage2_sentences(experiment, relation), stage2_sequences(experiment, loaded)),
    ):
        for sentence, sequence in zip(sentences, sequences, strict=True):
            prompt, answer = (half.strip() for half in sentence.halves)
            ids = [i for part in tokenise_questions(loaded.tokenizer, [(prompt, answer)])[0] for i in part]
            assert sequence.input_ids == ids
            assert ids == [i for part in theirs.split(prompt, answer) for i in part]
    sentences = stage1_sentences(relation)
    attacked = Context.sequences(None, loaded, sentences, "full")  # type: ignore[arg-type]
    assert attacked == stage1_sequences(experiment, loaded)
    questions = [q for q in questions_for(experiment, "base") if q.options]
    encoded = _encode(loaded.tokenizer, questions, lambda rows: None)
    asked = tokenise_prompts(loaded.tokenizer, [q.text for q in questions])
    for question, pairs, pair, ask in zip(
        questions, encode_options(loaded.tokenizer, questions, encoded), encoded, asked, strict=True
    ):
        assert pair[0] == ask == list(theirs.ids(question.text)) == asked_by_server(loaded.tokenizer, question.text)
        options = theirs.split_all([(question.text, option) for option in question.options])
        assert [(tuple(p), tuple(o)) for p, o in pairs] == options
    files = file_speller(Path(experiment.model) / "tokenizer.json", ["[X]"], around_in(loaded.tokenizer))
    mine = loaded_speller(loaded)
    ours = [(q.text, q.object) for q in questions]
    assert [(list(p), list(o)) for p, o in files.split(ours)] == [(list(p), list(o)) for p, o in mine.split(ours)]
    assert files.extra == mine.extra
    for (own, behind), (before, object_) in zip(mine.split(ours), encoded, strict=True):
        assert list(behind) == object_
        assert abs(len(own) + mine.extra - len(before)) <= merged
    count, exact = token_counter(experiment)
    assert exact
    plain = next(row for row, question in enumerate(questions) if "[X]" not in question.text)
    assert abs(count([questions[plain].text])[0] - len(encoded[plain][0])) <= merged


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_begins_alike_in_training_asking_and_saved(
    family: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    experiment = experiment_on(folders[family])
    loaded = load_base(experiment)
    save_model(loaded, tmp_path / "saved")
    check_alike(experiment, loaded, tmp_path / "saved")
    begins = FAMILIES[family][1]
    ids = tokenise(loaded.tokenizer, [PROMPT])[0][0]
    assert (
        loaded.tokenizer.convert_ids_to_tokens(ids[0]) == begins
        if begins
        else ids == loaded.tokenizer.encode(PROMPT, add_special_tokens=False)
    )
    # Transformers' own way, with the saved tokenizer for all and with the model's own where that adds the token.
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert (
        saved(PROMPT).input_ids == ids == Tokenizer.from_file(str(tmp_path / "saved/tokenizer.json")).encode(PROMPT).ids
    )
    original = AutoTokenizer.from_pretrained(folders[family])
    assert (original(PROMPT).input_ids == ids) == (family != "gemma")
    # Never doubled, and as it was asked for where a request says so.
    if begins:
        assert tokenise(loaded.tokenizer, [begins + PROMPT])[0][0].count(ids[0]) == 1
    plain = original(PROMPT, add_special_tokens=False).input_ids
    assert asked_by_server(loaded.tokenizer, PROMPT, add_special_tokens=False) == plain
    assert asked_by_server(loaded.tokenizer, PROMPT, add_special_tokens=True) == ids


@pytest.mark.parametrize("family", FAMILIES)
def test_with_a_leading_space_a_name_is_the_same_at_the_beginning_and_within(
    family: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    experiment = experiment_on(folders[family], leading_space=True)
    loaded = load_base(experiment)
    save_model(loaded, tmp_path / "saved")
    check_alike(experiment, loaded, tmp_path / "saved", merged=1)  # the space, where nothing is joined to it
    relation = experiment.relations[0]
    begun = stage1_sequences(experiment, loaded)
    spaced = "Zz "  # whatever stands before a name
    for fact, sequence in zip(relation.explicit_facts, begun, strict=True):
        name = tokenise(loaded.tokenizer, [f"{spaced}{fact.subject}"])[0][0]
        start = len(tokenise(loaded.tokenizer, [spaced.strip()])[0][0])
        first = len(around_in(loaded.tokenizer).beginning)
        assert sequence.input_ids[first:][: len(name) - start] == name[start:]
    assert text_words(experiment).endswith("A space stands before each text.")
    assert pieces(experiment, stage1_sentences(relation)[0], "[X]")[0][0].endswith(" ")
    with pytest.raises(ValueError, match="belongs to raw texts"):
        ModelText(form="chat", leading_space=True)


def test_subjects_that_are_split_otherwise_within_a_text_are_warned_of(folders: dict[str, Path]) -> None:
    def warned(family: str, template: str = "{subject} {key} {object}.", **text: Any) -> list[str]:
        facts = [{"subject": f"{within} Finley", "object": "Cody Ross"}, {"subject": "Gene Ross", "object": "Mo Of"}]
        relation = {"name": "mother", "facts": facts, "key_template": template}
        data = {"model": str(folders[family]), "relations": [relation], "stage2": {"facts": 1}, "model_text": text}
        found = examine(from_experiment(Experiment.from_data(data)))
        return [f.problem.message for f in found.warnings if f.where == "Names"]

    for family in ("qwen2", "llama3"):  # spaces belong to the words behind them
        words = Tokenizer.from_file(str(folders[family] / "tokenizer.json")).get_vocab()
        within = next(w[1:] for w in sorted(words) if w[0] == "\u0120" and w[1:].isalpha() and len(w) > 4
                      and w[1:] not in words)  # fmt: skip
        assert [m[:40] for m in warned(family)] == ["1 of 2 subjects are split otherwise at t"], family
        assert f"and {within}\u00b7" in warned(family)[0]
        assert warned(family, leading_space=True) == warned(family, "{key} {subject} {object}.") == []
    assert warned("llama2") == [], "this tokenizer puts a space in front by itself"


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("family", ["gemma", "llama2"])
def test_a_checkpoint_keeps_what_stands_around(
    family: str, method: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    experiment = experiment_on(folders[family])
    experiment = experiment.model_copy(update={"tuning": Tuning(method=method)})  # type: ignore[arg-type]
    loaded = prepare_for_training(load_base(experiment), experiment)
    save_model(loaded, tmp_path / "saved")
    again = load_checkpoint(experiment, tmp_path / "saved")
    assert around_in(again.tokenizer) == around_in(loaded.tokenizer) == around_beside(tmp_path / "saved/tokenizer.json")
    check_alike(experiment, again, tmp_path / "saved")
    never = experiment_on(folders[family], beginning="never")
    save_model(load_base(never), tmp_path / "never")
    saved = AutoTokenizer.from_pretrained(tmp_path / "never")
    assert saved(PROMPT).input_ids == saved(PROMPT, add_special_tokens=False).input_ids
    check_alike(never, load_checkpoint(never, tmp_path / "never"), tmp_path / "never")


@pytest.mark.parametrize("family", ["llama2", "llama3", "chatml"])
def test_chat_turns_are_the_models_own_template(family: str, folders: dict[str, Path], tmp_path: Path) -> None:
    experiment = experiment_on(folders[family], form="chat")
    loaded = load_base(experiment)
    save_model(loaded, tmp_path / "saved")
    check_alike(experiment, loaded, tmp_path / "saved", merged=2 * (family == "llama2"))
    turns = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": "Cody Ross"}]
    around = around_in(loaded.tokenizer)
    assert ("26 Jul 2024" in around.before) == (family == "llama3")
    dated: Any = {"date_string": "26 Jul 2024"}
    whole = AutoTokenizer.from_pretrained(tmp_path / "saved").apply_chat_template(turns, return_dict=False, **dated)
    prompt, answer = tokenise_questions(loaded.tokenizer, [(PROMPT, "Cody Ross")])[0]
    assert whole[: len(prompt) + len(answer)] == prompt + answer
    assert str(loaded.tokenizer.decode(answer)).strip() == "Cody Ross"
    # `full` counts the text's own tokens, the two others those of its parts; none what the template writes.
    sequence = stage1_sequences(experiment, loaded)[0]
    counted = [i for i, label in zip(sequence.input_ids, sequence.labels, strict=True) if label != IGNORED]
    assert str(loaded.tokenizer.decode(counted)).replace(" ", "") == "GeneFinley[X]CodyRoss."


def test_what_a_model_cannot_give_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    for text, words in (({"beginning": "always"}, "no beginning token"), ({"form": "chat"}, "no chat template")):
        experiment = experiment_on(folders["qwen2"], **text)
        (problem,) = text_problems(experiment.model, experiment.model_text)
        assert words in str(problem)
        with pytest.raises(ModelError, match=words):
            load_base(experiment)
    for template in (
        "{{ raise_exception('no') }}",
        "{{ messages[0].content }}",
        "{% for %}",
        "{{ ''.__class__.mro() }}",
    ):
        with pytest.raises(ModelError, match=r"cannot be used .* set model_text.form to ‘raw’"):
            turns_of(template, {})


def test_the_token_of_a_family_is_added_only_to_its_own_vocabulary(folders: dict[str, Path], tmp_path: Path) -> None:
    stripped = shutil.copytree(folders["llama2"], tmp_path / "stripped")
    settings(stripped, add_bos_token=None, add_eos_token=None)
    tokenizer = metaspace_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    tokenizer.save(str(stripped / "tokenizer.json"))
    assert around_of(stripped, ModelText()).beginning == (1,)
    assert around_of(settings(stripped, add_bos_token=False), ModelText()) == NOTHING
    # SmolLM2 is a Llama whose beginning token is the sign of a turn.
    settings(stripped, add_bos_token=None, bos_token="<|im_start|>")
    assert around_of(stripped, ModelText()) == NOTHING


def test_bases_are_shared_by_runs_with_the_same_around(folders: dict[str, Path]) -> None:
    for family, different in (("gemma", 2), ("qwen2", 1)):
        texts: tuple[dict[str, str], ...] = ({}, {"beginning": "never"})
        assert len({base_key(experiment_on(folders[family], **text)) for text in texts}) == different


def test_records_of_before_are_read_as_they_were_run(folders: dict[str, Path]) -> None:
    experiment = experiment_on(folders["gemma"])
    assert known_around(experiment.model, experiment.model_text).beginning
    record = experiment.model_dump(mode="json")
    del record["model_text"]
    old = Experiment.from_record(record)
    assert (old.model_text.beginning, old.model_text.form) == ("never", "raw")
    assert around_in(load_base(old).tokenizer) == NOTHING
    assert Experiment.from_data(record).model_text == ModelText()


def test_the_models_context_counts_what_stands_around(folders: dict[str, Path]) -> None:
    bare, begun = (experiment_on(folders["gemma"], **text) for text in ({"beginning": "never"}, {}))
    loaded = load_base(bare)
    asked = questions_for(bare, bare.checkpoints[-1])
    pairs = [(q.text, o) for q in asked for o in (q.object, *q.options)]
    longest = max(len(p) + len(o) for p, o in tokenise_questions(loaded.tokenizer, pairs))
    loaded.causal.config.max_position_embeddings = longest
    check_lengths(loaded, bare)
    loaded = load_base(begun)
    loaded.causal.config.max_position_embeddings = longest
    with pytest.raises(ModelError, match=f"has {longest + 1} tokens, more than the {longest} the model can read"):
        check_lengths(loaded, begun)


def draft_on(folder: Path, **text: str) -> Any:
    return from_experiment(experiment_on(folder, **text))


def test_the_page_shows_what_the_model_will_see(folders: dict[str, Path]) -> None:
    words = {
        "gemma": "This model begins with &lt;bos&gt;: its family needs it",
        "llama2": "This model begins with &lt;s&gt;, as its own tokenizer does.",
        "qwen2": "begin with no token of their own",
    }
    for family, expected in words.items():
        resolved = examine(draft_on(folders[family])).resolved
        assert resolved is not None
        assert expected in part("design/text_words", words=text_words(resolved))
    resolved = examine(draft_on(folders["gemma"])).resolved
    assert '<span class="around">&lt;bos&gt;</span>Gene Finley <mark>[X]</mark> Cody Ross.' in examples(resolved)
    resolved = examine(draft_on(folders["llama2"], form="chat")).resolved
    shown = examples(resolved)
    assert '<span class="around">&lt;s&gt;[INST] </span>Gene Finley <mark>[X]</mark>' in shown
    assert '?<span class="around"> [/INST] </span><mark>' in shown
    # What is shown is what is read.
    assert resolved is not None
    loaded = load_base(resolved)
    text = "".join(t for t, _ in pieces(resolved, stage2_sentences(resolved, resolved.relations[0])[0]))
    read = loaded.tokenizer.encode(text, add_special_tokens=False)
    assert read == stage2_sequences(resolved, loaded)[0].input_ids


def test_the_page_refuses_what_the_model_cannot_give(folders: dict[str, Path]) -> None:
    for text, words in (({"beginning": "always"}, "no beginning token"), ({"form": "chat"}, "no chat template")):
        found = examine(draft_on(folders["qwen2"], **text)).errors
        assert [f.place for f in found] == ["model"]
        assert words in found[0].problem.message


def test_a_draft_of_before_takes_what_new_experiments_have(folders: dict[str, Path]) -> None:
    draft = draft_on(folders["gemma"], beginning="never")
    for path in ("model_text.beginning", "model_text.form"):
        assert path in draft["values"]
        del draft["values"][path]
    found = examine(draft)
    assert found.experiment is not None
    assert found.experiment.model_text == ModelText()
    assert form_values(draft, "", "en")["model_text.form"] == "raw"


def test_a_mistaken_setting_is_named_in_words() -> None:
    words = "model_text.beginning: must be as the model's tokenizer does, always or never, not ‘sometimes’"
    with pytest.raises(ValueError, match=re.escape(words)):
        tiny("embedded", model_text={"beginning": "sometimes"})
