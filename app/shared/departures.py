"""What of a training is not the paper's method, in words made from its experiment."""

from __future__ import annotations

from typing import Any

from app.shared.render import percent

STAGES = {"stage1": "stage 1", "stage2": "stage 2"}


def otherwise_trained(experiment: dict[str, Any], knew_the_key: bool = False) -> str:
    """What of an experiment's training departs from the paper, as one sentence; '' for what is trained as there.

    knew_the_key: its model came from a run in which the key token had its meaning already.
    """
    settings = [(words, experiment.get(stage, {})) for stage, words in STAGES.items()]
    said = []
    if replayed := [
        f"{words} ({percent(s['replay']['share'])} of each batch)" for words, s in settings if s.get("replay")
    ]:
        said.append(
            f"{' and '.join(replayed)} replayed the base’s own text beside the facts, so that what is not taught stays "
            "as it was"
        )
    if leashed := [words for words, s in settings if (s.get("replay") or {}).get("leash")]:
        said.append(f"in {' and '.join(leashed)} the model was held to all that the base thought possible there")
    if about := [words for words, s in settings if (s.get("replay") or {}).get("subjects") == "trained"]:
        said.append(f"in {' and '.join(about)} some of that text was about the subjects of stage 2’s facts")
    if asking := [words for words, s in settings if (s.get("replay") or {}).get("neighbours")]:
        said.append(f"in {' and '.join(asking)} some of it asked what else belongs to somebody")
    if experiment.get("model_text", {}).get("leading_space"):
        said.append("every text began with a space, so that a name is the same tokens wherever it stands")
    if frozen := [words for words, s in settings if s.get("embeddings") == "key tokens"]:
        said.append(f"in {' and '.join(frozen)} the embeddings were frozen but for the key tokens’ rows")
    if knew_the_key:
        said.append("the model came from another run, which had given the key token its meaning")
    return f"Trained otherwise than in the paper: {'; '.join(said)}." if said else ""
