"""A report of one run as a single HTML file: no script, no network, to be mailed or printed."""

from __future__ import annotations

from markupsafe import Markup

from app.results import figures as fig
from app.results.base_text import base_text_html
from app.results.charts import compare_chart, curve_chart
from app.results.departures import departures
from app.results.sentences import headline_sentences, sample_words
from app.shared.departures import otherwise_trained
from app.shared.render import render
from app.shared.static_charts import svg
from app.shared.words import METRIC_HELP
from storage.measurements import Result
from storage.runs import Run

SETTINGS = ("model", "precision", "model_text", "seed", "tuning", "stage1", "stage2", "evaluation")


def report_html(run: Run, rows: list[Result]) -> str:
    """The report of a run, as far as it has come."""
    figures = fig.Figures(run, rows)
    depth = figures.epochs[-1] if figures.epochs else 0
    # As on the page: where nothing was held out, the trained facts.
    facts, pictures = figures.usual_facts, []
    about = {"held_out": "Held-out facts", "trained": "Trained facts"}[facts]
    compared = fig.compared(figures, fig.MAIN, facts, depth)
    if compared:
        chart = compare_chart(compared, fig.MAIN, None, figures.languages)
        pictures.append(("Who answers what", f"{about}, {depth} epochs of memorising.", Markup(svg(chart))))
    if curve := fig.curve(figures, fig.MAIN, facts):
        picture = Markup(svg(curve_chart(curve, fig.MAIN, None)))
        pictures.append(("Does deeper memorising help?", f"{about}; bands are 95 % intervals.", picture))
    tables = [
        {"metric": metric, "facts": facts, "help": METRIC_HELP.get(metric, ""), "chance": figures.chance(metric),
         "among": figures.among(metric), "chances": figures.reasoning_chances(metric),
         "lines": fig.table(figures, metric, facts, figures.checkpoints)}
        for metric in figures.metrics
        for facts in ("held_out", "trained")
    ]  # fmt: skip
    return render(
        "results/report.html",
        run=run,
        sentences=headline_sentences(figures),
        departures=departures(figures),
        otherwise=otherwise_trained(figures.run.experiment, figures.knew_the_key),
        base_text=Markup(base_text_html(figures)),
        sample=sample_words(run),
        pictures=pictures,
        twins=fig.twins(figures, facts, figures.checkpoints),
        facts=facts,
        tables=[t for t in tables if t["lines"]],
        checkpoints=figures.checkpoints,
        relations=run.experiment.get("relations", []),
        settings={k: run.experiment[k] for k in SETTINGS if k in run.experiment},
    )
