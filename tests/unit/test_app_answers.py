"""One answer as the page Results opens it."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

from app.results.answer_map import answer_html
from app.shared.lab import Lab
from engine.evaluation.answer import Answer
from storage.answers import open_answers, store_answers, store_questions
from storage.runs import add_run


def test_the_answer_that_was_clicked_opens_however_many_checkpoints_there_are(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    run = add_run(lab.db, name="deep", experiment={"relations": []}, model="embedded", seed=0)
    fact = {"id": 1, "relation": "mother", "subject": "Sel Tarro", "object": "Brin Vosk", "trained": 0}
    prompt = {"relation": "mother", "split": "test", "language": "en", "text": "{subject}?", "about": None, "used": 0}
    names = ["base", *(f"memorised@{e}" for e in range(1, 31)), *(f"generalised@{e}" for e in range(1, 31))]
    with closing(open_answers(lab.folder(run.id))) as answers:
        store_questions(answers, [fact], [prompt | {"id": 1}])
        for name in names:
            store_answers(answers, name, [Answer(1, 1, f"said by {name}.", False, -0.1)])
    opened = answer_html(lab, run, "1/1", "generalised@30")
    assert "One answer, generalised from epoch 30" in opened
    assert re.search(r'class="said">said by generalised@30\. ', opened)
    assert "first 40 of 61 checkpoints" in opened
    assert "One answer, memorised at epoch 2<" in answer_html(lab, run, "1/1", "memorised@2")
    assert "One answer, base model" in answer_html(lab, run, "1/1", None)
    assert answer_html(lab, run, "1/2", "base") == answer_html(lab, run, "x/1", "base") == ""
