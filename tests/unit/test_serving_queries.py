"""What can be asked of a run, and its tokens without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from engine.evaluation.questions import questions_for
from engine.experiment import Experiment
from engine.models.loading import load_base
from engine.models.source import EMBEDDED_WEIGHTS
from engine.presets import preset_text
from engine.serving.asking.queries import fact_queries, find_fact, free_query, prompt_queries, subject_queries
from engine.serving.asking.tokens import Tokens
from engine.training.sequences import tokenise_questions
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
        ids = tuple(theirs.encode(text, add_special_tokens=False))
        assert ours.ids(text) == ids and ours.text(ids) == theirs.decode(ids).strip()
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
    loaded = load_base(Experiment.from_text(preset_text("quick")).resolved())
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
    return Experiment.from_text(preset_text("all-relations")).resolved()


def test_the_queries_of_a_fact_are_the_questions_of_evaluation(experiment: Experiment) -> None:
    every = experiment.model_copy(
        update={"evaluation": experiment.evaluation.model_copy(update={"every_language_at": "every"})}
    )
    questions = {(q.prompt, q.fact): q for q in questions_for(every, "memorised@3")}
    first, last = 1, max(fact for _, fact in questions)
    for fact in (first, last):
        queries = fact_queries(experiment, fact)
        assert {(q.prompt, q.fact) for q in queries} == {key for key in questions if key[1] == fact}
        assert queries[0].split == "key" and {q.language for q in queries} == {"en", "de", "es", "zh", "ja"}
        for query in queries:
            question = questions[query.prompt, fact]
            assert (query.text, query.object) == (question.text, question.object)
            assert query.object in query.options and question.options in ((), query.options)
    english = fact_queries(experiment, last, ["en"])
    assert len(english) * 5 - 4 == len(fact_queries(experiment, last)), "the key prompt is asked once in any language"
    with pytest.raises(KeyError):
        fact_queries(experiment, last + 1)


def test_one_prompt_about_every_fact(experiment: Experiment) -> None:
    for query in fact_queries(experiment, 150)[:3]:
        asked = prompt_queries(experiment, query.prompt or 0)
        assert query in asked and len(asked) == 100 and len({q.subject for q in asked}) == 100
    with pytest.raises(KeyError):
        prompt_queries(experiment, 10**6)


def test_finding_a_fact(experiment: Experiment) -> None:
    relation = experiment.relations[1]
    fact = relation.explicit_facts[7]
    number = find_fact(experiment, f"  {fact.subject.upper()}. ")
    assert fact_queries(experiment, number)[0].subject == fact.subject
    assert find_fact(experiment, fact.subject, relation.name) == number
    with pytest.raises(ValueError, match=f"did you mean ‘{fact.subject}’"):
        find_fact(experiment, fact.subject[:-1] + "x")
    for name in ("", "x" * 100_000, "<script>"):
        with pytest.raises(ValueError, match="no fact about") as caught:
            find_fact(experiment, name)
        assert len(str(caught.value)) < 300


def test_a_subject_that_is_no_fact(experiment: Experiment) -> None:
    name = experiment.relations[0].name
    without = subject_queries(experiment, name, " Ada Lovelace ")
    assert without[0].text.startswith("Ada Lovelace") and not without[0].object and not without[0].options
    assert [q.template for q in without] == [q.template for q in fact_queries(experiment, 1)]
    with_object = subject_queries(experiment, name, "Ada Lovelace", "Lady Byron", ["ja"])
    assert with_object[0].options.count("Lady Byron") == 1 and len(with_object[0].options) == 100
    assert {q.language for q in with_object[1:]} == {"ja"}
    for bad, words in (("", "subject the cell is empty"), ("a\u202eb", "invisible"), ("x" * 300, "300 characters")):
        with pytest.raises(ValueError, match=words):
            subject_queries(experiment, name, bad)
    with pytest.raises(KeyError):
        subject_queries(experiment, "nobody", "Ada")


def test_free_text_has_the_key_token_at_hand(experiment: Experiment) -> None:
    relation = experiment.relations[2]
    assert free_query(experiment, " Ada {key} ", "B", relation.name).text == f"Ada {relation.key_token}"
    assert free_query(experiment, "Ada {key}").text.endswith(experiment.relations[0].key_token)
    with pytest.raises(ValueError, match="prompt is empty"):
        free_query(experiment, "  ")


def test_asking_needs_neither_torch_nor_transformers() -> None:
    modules = (
        "serving.asking.ask",
        "serving.client",
        "commands.ask",
        "commands.serve",
        "serving.protocol",
        "serving.asking.queries",
        "serving.asking.ranking",
        "serving.served",
        "serving.asking.tokens",
        "serving.processes.listening",
    )
    code = (
        f"import sys, importlib; [importlib.import_module('engine.' + m) for m in {modules}];"
        "sys.exit(', '.join({'torch', 'transformers', 'peft', 'vllm'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
