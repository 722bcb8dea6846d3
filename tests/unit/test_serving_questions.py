"""What can be asked of a run, and its tokens without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from engine.commands.ask import _questions
from engine.corpus.resolve import resolve
from engine.evaluation.questions import questions_for
from engine.experiment import Experiment
from engine.models.loading import load_base
from engine.models.source import EMBEDDED_WEIGHTS
from engine.models.tokenise import tokenise_questions
from engine.presets import EXPERIMENTS
from engine.serving.asking.questions import (
    AskError,
    fact_questions,
    facts_questions,
    find_fact,
    near_subjects,
    no_fact,
    text_question,
)
from engine.serving.asking.tokens import Tokens
from tests.questions import about_fact
from tests.unit.tiny_models import BUILDERS, tiny_experiment

ROOT = Path(__file__).parents[2]
TEXTS = [
    "Gene Finley [X]",
    "Who is the mother of Zoë O'Brien?",
    "東京の母は",
    "Qué? ¡No!",
    "Ends in a space ",
    "1984,",
    "A",
]
ANSWERS = ["Cody Ross", "Nora Weiß", "1938", "東京", "(none)", "'s"]


@pytest.fixture(scope="module", params=[*BUILDERS, "embedded"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "embedded":
        return EMBEDDED_WEIGHTS
    loaded = load_base(tiny_experiment(BUILDERS[request.param](tmp_path_factory.mktemp("models"))))
    saved = tmp_path_factory.mktemp("tokenizer")
    loaded.tokenizer.save_pretrained(saved)
    return saved


def test_tokens_are_those_of_training(folder: Path) -> None:
    ours, theirs = Tokens.load(folder / "tokenizer.json"), AutoTokenizer.from_pretrained(folder)
    pairs = [(text, answer) for text in TEXTS for answer in ANSWERS]
    expected = [(tuple(p), tuple(a)) for p, a in tokenise_questions(theirs, pairs)]
    assert ours.split_all(pairs) == expected
    for text in TEXTS:
        ids = tuple(theirs.encode(text))
        read = theirs.decode(list(ids))
        assert isinstance(read, str), "of one text"
        assert ours.ids(text) == ids and ours.text(ids) == read.strip()
        for answer in ANSWERS:
            _, behind = ours.split(text, answer)
            assert "".join(ours.token_texts(ids, behind)).strip() == answer


def test_options_cut_once_are_the_options_cut_behind_each_prompt(folder: Path) -> None:
    tokens, options = Tokens.load(folder / "tokenizer.json"), tuple(ANSWERS)
    cut = tokens.options(options)
    if cut is None:
        # Merges may cross the space: "Llama" and "Phi" cut a text nowhere before they merge.
        assert '"split": false' in (folder / "tokenizer.json").read_text()
        return
    for text in TEXTS:
        assert [behind for _, behind in tokens.split_all([(text, o) for o in options])] == list(cut)
    assert tokens.options(options) is cut


def test_a_tokenizer_is_read_again_when_its_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes((EMBEDDED_WEIGHTS / "tokenizer.json").read_bytes())
    before = Tokens.load(path)
    assert Tokens.load(path) is before
    loaded = load_base(resolve(Experiment.from_text(EXPERIMENTS.text("quick"))))
    loaded.tokenizer.save_pretrained(tmp_path)
    assert len(Tokens.load(path).ids("A [Z]")) < len(before.ids("A [Z]"))
    path.write_text("{")
    with pytest.raises(ValueError, match="cannot be read as a tokenizer"):
        Tokens.load(path)
    path.unlink()
    with pytest.raises(ValueError, match="is missing"):
        Tokens.load(path)


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return resolve(Experiment.from_text(EXPERIMENTS.text("all-relations")))


def test_the_questions_of_a_fact_are_those_of_evaluation(experiment: Experiment) -> None:
    every = experiment.model_copy(
        update={"evaluation": experiment.evaluation.model_copy(update={"every_language_at": "every"})}
    )
    evaluated = {(q.prompt, q.fact): q for q in questions_for(every, "memorised@3")}
    first, last = 1, max(fact for _, fact in evaluated)
    for fact in (first, last):
        questions = about_fact(experiment, fact)
        assert {(q.prompt_id, q.fact_id) for q in questions} == {key for key in evaluated if key[1] == fact}
        assert questions[0].split == "key" and {q.language for q in questions} == {"en", "de", "es", "zh", "ja"}
        for question in questions:
            other = evaluated[question.prompt_id or 0, question.fact_id or 0]
            assert (question.text, question.object) == (other.text, other.object)
            assert question.object in question.options and other.options in ((), question.options)
    english = fact_questions(experiment, questions[0].subject, questions[0].relation, languages=["en"])
    assert len(english) * 5 - 4 == len(questions), "the key prompt is asked once in any language"


def test_one_prompt_about_every_fact(experiment: Experiment) -> None:
    for question in about_fact(experiment, 150)[:3]:
        every = facts_questions(experiment, question.prompt, question.relation)
        assert question in every and len(every) == 100 and len({q.subject for q in every}) == 100
    key = facts_questions(experiment, "{subject} {key}", question.relation)
    assert key[0].split == "key" and about_fact(experiment, 150)[0] in key
    for prompt in ("no place", "{subject} and {subject}"):
        with pytest.raises(AskError, match="exactly once"):
            facts_questions(experiment, prompt)


def test_finding_a_fact(experiment: Experiment) -> None:
    relation = experiment.relations[1]
    fact = relation.explicit_facts[7]
    found = find_fact(experiment, f"  {fact.subject.upper()}. ")
    assert found is not None and found["subject"] == fact.subject
    assert find_fact(experiment, fact.subject, relation.name) == found
    assert find_fact(experiment, fact.subject, experiment.relations[0].name) is None
    wrong = fact.subject[:-1] + "x"
    assert find_fact(experiment, wrong) is None and near_subjects(experiment, wrong)[0] == fact.subject
    assert f"did you mean ‘{fact.subject}’" in str(no_fact(experiment, wrong))
    for name in ("", "x" * 100_000, "<script>"):
        assert find_fact(experiment, name) is None
        assert "no fact about" in str(no_fact(experiment, name)) and len(str(no_fact(experiment, name))) < 300


def test_a_subject_that_is_no_fact(experiment: Experiment) -> None:
    name = experiment.relations[0].name
    without = fact_questions(experiment, " Ada  Lovelace ", name)
    assert without[0].text.startswith("Ada Lovelace") and not without[0].object and not without[0].options
    assert [q.prompt for q in without] == [q.prompt for q in about_fact(experiment, 1)]
    with_object = fact_questions(experiment, "Ada Lovelace", name, "Lady Byron", ["ja"])
    assert with_object[0].options.count("Lady Byron") == 1 and len(with_object[0].options) == 100
    assert {q.language for q in with_object[1:]} == {"ja"}
    for bad, words in (("", "choose a fact"), ("a\u202eb", "invisible"), ("x" * 300, "300 characters")):
        with pytest.raises(AskError, match=words):
            fact_questions(experiment, bad, name)
    for bad, words in (("a\u202eb", "invisible"), ("x" * 300, "300 characters"), ("...", "nothing but punctuation")):
        with pytest.raises(AskError, match=words):
            fact_questions(experiment, "Ada Lovelace", name, bad)
    with pytest.raises(AskError, match="no relation ‘nobody’; it has"):
        fact_questions(experiment, "Ada", "nobody")
    with pytest.raises(AskError, match="no prompts in ‘fr’; it has en"):
        fact_questions(experiment, "Ada", name, languages=["fr"])


def test_free_text_has_the_key_token_at_hand(experiment: Experiment) -> None:
    relation = experiment.relations[2]
    asked = text_question(experiment, "Ada {key}", relation.name, object="B")
    assert (asked.text, asked.object, asked.relation) == (f"Ada {relation.key_token}", "B", relation.name)
    assert text_question(experiment, "Ada {key}").text.endswith(experiment.relations[0].key_token)
    fact = relation.explicit_facts[0]
    named = text_question(experiment, f"{fact.subject} {{key}}")
    assert named.text == f"{fact.subject} {relation.key_token}", "of the fact that the text names"
    assert named.object == fact.object and named.object in named.options
    with pytest.raises(AskError, match="prompt is empty"):
        text_question(experiment, "  ")


def test_a_prompt_of_ones_own_about_a_subject(experiment: Experiment) -> None:
    fact = experiment.relations[1].explicit_facts[3]
    own = text_question(experiment, "{subject} {key} is", subject=fact.subject.upper())
    key = experiment.relations[1].key_token
    assert (own.text, own.prompt) == (f"{fact.subject} {key} is", f"{{subject}} {key} is")
    row = find_fact(experiment, fact.subject)
    assert row is not None
    assert (own.object, own.split, own.fact_id) == (fact.object, "free", row["id"])
    unknown = text_question(experiment, "{subject}?", experiment.relations[1].name, "Ada Lovelace")
    assert (unknown.text, unknown.object, unknown.options) == ("Ada Lovelace?", None, ())


def test_the_command_asks_what_the_page_asks(experiment: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    fact = experiment.relations[0].explicit_facts[2]
    wrong = fact.subject[:-1] + "x"
    assert _questions(experiment, fact.subject.lower(), "", "", "", ()) == fact_questions(experiment, fact.subject)
    assert _questions(experiment, "", "Ada {key}", "", "", ()) == [text_question(experiment, "Ada {key}")]
    with pytest.raises(AskError, match=f"did you mean ‘{fact.subject}’"):
        _questions(experiment, wrong, "", "", "", ())
    relation = experiment.relations[0].name
    assert _questions(experiment, wrong, "", "", relation, ()) == fact_questions(experiment, wrong, relation)
    assert f"did you mean ‘{fact.subject}’" in capsys.readouterr().err, "asked all the same, with near ones named"
    for subject, prompt in (("", ""), ("", "{subject}?")):
        with pytest.raises(ValueError, match="give a --subject"):
            _questions(experiment, subject, prompt, "", "", ())


def test_asking_needs_neither_torch_nor_transformers() -> None:
    modules = (
        "serving.asking.ask",
        "serving.client",
        "commands.ask",
        "serving.protocol",
        "serving.asking.questions",
        "serving.asking.ranking",
        "serving.served",
        "serving.asking.tokens",
        "serving.listening",
    )
    code = (
        f"import sys, importlib; [importlib.import_module('engine.' + m) for m in {modules}];"
        "sys.exit(', '.join({'torch', 'transformers', 'peft', 'vllm'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
