"""What a run will cost, in words, by earlier runs of the same model and method where the lab has finished some."""

from __future__ import annotations

from app.shared.lab import Lab
from app.shared.render import duration, moment
from engine.estimate import Estimate, estimate_experiment
from engine.experiment import Experiment
from storage.runs import State, get_run, list_runs

EARLIER_RUNS = 3


def estimate_for(lab: Lab, resolved: Experiment) -> list[tuple[str, str]]:
    """The estimate of a resolved experiment as rows of (what, how much)."""
    return estimate_words(estimate_experiment(resolved, seconds_per_pass=_speeds(lab, resolved)))


def estimate_words(estimate: Estimate) -> list[tuple[str, str]]:
    """An estimate as rows of (what, how much)."""
    about = "" if estimate.exact_tokens else "about "
    branch = f"{about}{estimate.stage2_tokens:,} tokens in {estimate.stage2_steps:,} steps"
    rows = [
        ("Stage 1", f"{about}{estimate.stage1_tokens:,} tokens in {estimate.stage1_steps:,} steps"),
        ("Stage 2", branch if estimate.branches == 1 else f"{estimate.branches} × {branch}"),
        ("Evaluation", f"{estimate.questions:,} questions, {estimate.choices:,} also as multiple choice"),
        ("Time", _time(estimate)),
        ("Memory", f"about {_bytes(estimate.memory)}" if estimate.memory else "unknown, as the model's size is"),
    ]
    if estimate.parameters:
        rows.insert(0, ("Model", f"{_size(estimate.parameters)} parameters, by {estimate.parameters_from}"))
    return rows


def _time(estimate: Estimate) -> str:
    if not estimate.seconds:
        return "unknown, as the model's size is"
    # Two digits say as much as an estimate knows.
    low, middle, high = (duration(max(1.0, float(f"{seconds:.1e}"))) for seconds in estimate.seconds)
    basis = "by earlier runs of this model" if estimate.from_earlier_runs else "a rough guess for this machine"
    return f"about {middle} ({low} – {high}), {basis}"


def _size(parameters: int) -> str:
    for limit, word in ((1e9, "billion"), (1e6, "million")):
        if parameters >= limit:
            return f"{parameters / limit:.3g} {word}"
    return f"{parameters:,}"


def _bytes(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{max(1, round(number / 1e6))} MB"


def _speeds(lab: Lab, experiment: Experiment) -> list[float]:
    runs = (
        run
        for run in list_runs(lab.db, limit=50, state=State.DONE.value, made_here=True)
        if run.model == experiment.model
    )
    speeds: list[float] = []
    for run in runs:
        if speed := _speed(lab, run.id, experiment.tuning.method):
            speeds.append(speed)
        if len(speeds) == EARLIER_RUNS:
            break
    return speeds


_known_speeds: dict[str, tuple[str, float]] = {}


def _speed(lab: Lab, run_id: str, method: str) -> float | None:
    """Seconds for each pass of a finished run, if it was trained by this method. A finished run does not change."""
    if run_id not in _known_speeds:
        run = get_run(lab.db, run_id)
        seconds = 0.0
        if run.started_at and run.finished_at:
            seconds = (moment(run.finished_at) - moment(run.started_at)).total_seconds()
        try:
            past = Experiment.from_record(run.experiment)
            passes = estimate_experiment(past).passes
        except ValueError:
            return None
        _known_speeds[run_id] = (past.tuning.method, seconds / passes if run.attempt == 1 else 0.0)
    past_method, speed = _known_speeds[run_id]
    return speed if past_method == method and speed > 0 else None
