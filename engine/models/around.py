"""What a model needs around a text: the token that it begins with, and the turns of its chat template.

    around = around_of(folder, experiment.model_text)     # from a model's folder, for page, estimate and loader alike
    around.whole("Who is Ana's mother?", "Cody Ross")     # the text that is tokenised
    around.begun(ids)                                     # its ids behind the beginning token, never behind two

`engine.models.tokenise` keeps it with a loaded model's tokenizer, which saves it beside tokenizer.json; `around_beside`
reads it there. Only beginnings are added, never an end token. Knows no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from engine.corpus.sentences import Sentence, Span
from engine.models.chat import chat_template, turns_of
from engine.models.folder_check import read_tokenizer
from engine.models.reading import called, inside_file, read_json
from engine.models.source import ModelError
from engine.settings import ModelText

KEY = "rote_lab_text"  # in tokenizer_config.json of what the lab saves
SETTINGS = "tokenizer_config.json"
PROBE = "Gene Finley"

# Families that are only themselves behind their beginning token, also where a copy's tokenizer lost the setting, as
# those read from GGUF files do: (model_type, the token, a further token that tells the vocabulary).
# Gemma: lm-evaluation-harness, pull requests 1465 (perplexity 5.9e9 without and 3.46 with it), 2049 and 3430. Llama and
# Mistral: their makers' own tokenizers begin every text so (`bos=True` in meta-llama's example_text_completion.py and
# llama3's generation.py, mistral-common). A vocabulary without the sign, such as SmolLM2's, is another model's.
FAMILIES = (
    *((kind, "<bos>", "<eos>") for kind in (
        "gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n", "gemma3n_text", "recurrent_gemma")),
    *((kind, "<s>", "<0x0A>") for kind in ("llama", "mistral", "mixtral")),
    ("llama", "<|begin_of_text|>", "<|end_of_text|>"),
)  # fmt: skip

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Around:
    """beginning: ids in front of every text. before, between: what the chat template writes before the user's turn and
    between it and the model's; without a template nothing, or the space that every text is to begin with, and the space
    between question and answer."""

    beginning: Ids = ()
    before: str = ""
    between: str = " "

    @property
    def is_chat(self) -> bool:
        """Whether a chat template stands around the text."""
        return bool(self.before.strip(" ")) or self.between != " "

    def plain(self, text: str) -> str:
        """A text that is no question, as it is tokenised: without a template."""
        return text if self.is_chat else self.before + text

    def asks(self, prompt: str) -> str:
        """The prompt as it is asked, up to where the model answers; without the space that belongs to the answer."""
        return self.before + prompt + self.between.rstrip(" ")

    def whole(self, prompt: str, answer: str) -> str:
        """Prompt and answer. What a template writes behind the answer is left out: nothing reads it."""
        return self.before + prompt + self.between + answer

    def begun(self, ids: Sequence[int]) -> list[int]:
        """The ids behind the beginning, which a text or a template may have written itself."""
        count = len(self.beginning)
        return list(ids) if tuple(ids[:count]) == self.beginning else [*self.beginning, *ids]

    def cut(self, prompt: str, ids: Sequence[int], offsets: Sequence[Span]) -> tuple[list[int], list[int]]:
        """The ids of `whole(prompt, answer)`, which begin where it does, split where the answer begins. A space before
        the answer, and a token that lies over the edge, count to the answer."""
        edge = len(self.asks(prompt))
        place = next((i for i, (_, end) in enumerate(offsets) if end > edge), len(ids))
        return self.begun(ids[:place]), list(ids[place:])

    def own(self, prompt: str, ids: Sequence[int], offsets: Sequence[Span]) -> list[int]:
        """The ids of the prompt itself in `whole(prompt, answer)`, without what stands around it."""
        first, last = len(self.before), len(self.before) + len(prompt)
        place = next((i for i, (_, end) in enumerate(offsets) if end > len(self.asks(prompt))), len(ids))
        if not self.before and not self.is_chat:
            return list(ids[:place])
        spans = zip(ids[:place], offsets[:place], strict=True)
        return [i for i, (start, end) in spans if end > first and start < last]

    def put(self, sentence: Sentence) -> tuple[Sentence, tuple[Span, ...]]:
        """The sentence with its template, and where in it its own two parts stand: what stands before the object is the
        user's turn, the object and what follows the model's."""
        start = len(self.before)
        subject = sentence.subject and (sentence.subject[0] + start, sentence.subject[1] + start)
        if not self.is_chat:
            text = self.plain(sentence.text)
            return Sentence(text, subject, (sentence.object[0] + start, sentence.object[1] + start)), ((0, len(text)),)
        prompt, answer = (half.strip(" ") for half in sentence.halves)
        text = self.whole(prompt, answer)
        turn = (len(self.asks(prompt)), len(text))
        rest = len(sentence.text.rstrip(" ")) - sentence.object[1]
        return Sentence(text, subject, (turn[0], len(text) - rest)), ((start, start + len(prompt)), turn)


NOTHING = Around()


@dataclass(frozen=True)
class Beginning:
    """What a model's folder says of its beginning. token: its text, '' for none; added: the ids that its tokenizer puts
    in front; needed: the ids that it needs (those, or its family's); lost: whether its tokenizer does not add them."""

    token: str
    id: int | None
    added: Ids
    needed: Ids
    lost: bool


def around_of(folder: Path, text: ModelText, tokenizer: Tokenizer | None = None) -> Around:
    """What stands around a text to the model in `folder`. Raises ModelError for what it cannot give.

    tokenizer: its own, by default that of the folder's tokenizer.json.
    """
    found = beginning_of(folder, tokenizer)
    if text.beginning == "always" and found.id is None:
        raise ModelError(
            f"the model in {called(folder)} has no beginning token: set model_text.beginning to ‘as the model's "
            "tokenizer does’ or ‘never’"
        )
    beginning = () if text.beginning == "never" else found.needed
    if text.beginning == "always" and found.id is not None:
        beginning = beginning or (found.id,)
    if text.form == "raw":
        return Around(beginning, " " if text.leading_space else "")
    template = chat_template(folder)
    if not template:
        raise ModelError(f"the model in {called(folder)} has no chat template: set model_text.form to ‘raw’")
    tokens = _special_texts(folder)
    # A template writes the beginning token itself, by this name; one that spells it out means more by it than that.
    named = {"bos_token": "" if text.beginning == "never" else found.token}
    return Around(beginning, *turns_of(template, tokens | named))


def beginning_of(folder: Path, tokenizer: Tokenizer | None = None) -> Beginning:
    """What the model in `folder` begins with. Raises ModelError when its files cannot be read."""
    if tokenizer is not None:
        return _beginning(folder, tokenizer)
    file = inside_file(folder, "tokenizer.json")
    if file is None:
        return Beginning("", None, (), (), False)
    state = tuple(p.stat().st_mtime_ns for p in (file, folder / SETTINGS, folder / "config.json") if p.exists())
    return _remembered(folder, state)


@lru_cache(maxsize=64)
def _remembered(folder: Path, state: tuple[int, ...]) -> Beginning:
    return _beginning(folder, read_tokenizer(folder / "tokenizer.json"))


def _beginning(folder: Path, tokenizer: Tokenizer) -> Beginning:
    settings = read_json(folder, SETTINGS) or {}
    family = _family(folder, tokenizer)
    token = _special_texts(folder).get("bos_token") or family
    number = tokenizer.token_to_id(token) if token else None
    if "add_bos_token" in settings or "add_eos_token" in settings:  # transformers takes these before the file's own
        added: Ids = (number,) if settings.get("add_bos_token") and number is not None else ()
    else:
        added = _put_in_front(tokenizer)
    if added and number is None:
        number, token = added[0], tokenizer.id_to_token(added[0]) or ""
    own = tokenizer.token_to_id(family) if family and settings.get("add_bos_token") is not False else None
    needed = added or (() if own is None else (own,))
    return Beginning(token, number, added, needed, needed != added)


def _family(folder: Path, tokenizer: Tokenizer) -> str:
    """The beginning token of the model's family, '' where it has none or is not known to need it."""
    config = read_json(folder, "config.json") or {}
    for kind, token, other in FAMILIES:
        known = all(tokenizer.token_to_id(sign) is not None for sign in (token, other))
        named = _special_texts(folder).get("bos_token") or token
        if config.get("model_type") == kind and known and named == token:
            return token
    return ""


def _put_in_front(tokenizer: Tokenizer) -> Ids:
    plain = tokenizer.encode(PROBE, add_special_tokens=False).ids
    whole = tokenizer.encode(PROBE).ids
    for place in range(len(whole) - len(plain) + 1):
        if whole[place : place + len(plain)] == plain:
            return tuple(whole[:place])
    return ()


def _special_texts(folder: Path) -> dict[str, str]:
    """The tokens that the settings name, such as `bos_token`, by that name."""
    found: dict[str, str] = {}
    for name in ("special_tokens_map.json", SETTINGS):
        for key, value in (read_json(folder, name) or {}).items():
            text = value.get("content") if isinstance(value, dict) else value
            if key.endswith("_token") and isinstance(text, str):
                found[key] = text
    return found


def written(around: Around) -> dict[str, Any]:
    """As plain data, for `read`."""
    return {**asdict(around), "beginning": list(around.beginning)}


def read(data: Any) -> Around:
    """What `written` wrote; nothing around for anything else, such as what labs of before saved."""
    if not isinstance(data, dict):
        return NOTHING
    ids, before, between = data.get("beginning"), data.get("before"), data.get("between")
    if not isinstance(ids, list) or not all(type(i) is int and i >= 0 for i in ids):
        return NOTHING
    return Around(tuple(ids), before, between) if isinstance(before, str) and isinstance(between, str) else NOTHING


def around_beside(tokenizer: Path) -> Around:
    """What was trained and is asked with a tokenizer.json of the lab's: a checkpoint's, or a prepared base's."""
    try:
        return read((read_json(tokenizer.parent, SETTINGS) or {}).get(KEY))
    except ModelError:
        return NOTHING
