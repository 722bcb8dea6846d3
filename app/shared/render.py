"""HTML for the pages: Jinja templates with automatic escaping, and the filters that turn values into words.

Gradio's own templates are not used for anything a person typed: `{{x}}` there escapes HTML but is then evaluated as
a JavaScript template string, so a run named `${…}` would be code. What is rendered here is inserted as it is.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import yaml

from app.shared import words
from engine.commands.program import as_called
from storage.acting import is_admin, may_change, may_run
from storage.measurements import Result

# By what a browser tells of itself, those first that also name others.
BROWSERS = (
    ("Edg/", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari")
)  # fmt: skip
SYSTEMS = (
    ("Android", "Android"), ("iPhone", "iPhone"), ("iPad", "iPad"), ("Windows", "Windows"), ("Mac OS", "macOS"),
    ("CrOS", "ChromeOS"), ("Linux", "Linux"),
)  # fmt: skip

# `runs/list.html` is app/runs/templates/list.html.
ROOMS = Path(__file__).parents[1]

ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PrefixLoader({p.parent.name: jinja2.FileSystemLoader(p) for p in ROOMS.glob("*/templates")}),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: Any) -> str:
    """The template ROOM/NAME.html (app/ROOM/templates/NAME.html) filled in; every value is escaped."""
    return ENVIRONMENT.get_template(template).render(**values)


def part(name: str, **values: Any) -> str:
    """The macro ROOM/NAME (of app/ROOM/templates/parts.html) filled in; every value is escaped."""
    room, _, macro = name.partition("/")
    return str(getattr(ENVIRONMENT.get_template(f"{room}/parts.html").module, macro)(**values))


def moment(text: str) -> datetime:
    """A stored time (ISO 8601 UTC) as a datetime."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def duration(seconds: float) -> str:
    """A span of time in at most two units: `42 s`, `3 min 5 s`, `2 h 10 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes < 10 and rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} days"


def ago(text: str) -> str:
    """How long ago a stored time was, in words."""
    seconds = (datetime.now(UTC) - moment(text)).total_seconds()
    if seconds < 45:
        return "just now"
    if seconds < 3600:
        return f"{max(1, round(seconds / 60))} min ago"
    if seconds < 48 * 3600:
        return f"{round(seconds / 3600)} h ago"
    return f"{round(seconds / 86400)} days ago"


def seconds_ago(at: float) -> str:
    """The same of a time in seconds since 1970."""
    return ago(datetime.fromtimestamp(at, UTC).isoformat())


def browser_name(agent: str) -> str:
    """What a browser calls itself, in two words, such as `Firefox on Linux`; as it is where it is none of the usual."""
    browser, system = (next((name for sign, name in of if sign in agent), "") for of in (BROWSERS, SYSTEMS))
    return f"{browser} on {system}" if browser and system else browser or agent[:60] or "unknown"


def between(start: str | None, end: str | None) -> str:
    """How long it took from one stored time to another, or to now; empty when it has not begun."""
    if not start:
        return ""
    last = moment(end) if end else datetime.now(UTC)
    return duration((last - moment(start)).total_seconds())


def percent(value: float | None) -> str:
    """A share from 0 to 1 as a whole percentage."""
    return "–" if value is None else f"{100 * value:.0f}\u00a0%"


def interval(row: Result | dict[str, Any]) -> str:
    """`83 % [78–87]` of a result row (or of `value, low, high` as plain data)."""
    value = row["value"] if isinstance(row, dict) else row.value
    return f"{percent(value)}\u00a0{bounds(row)}"


def bounds(row: Result | dict[str, Any]) -> str:
    """`[78–87]`, the interval of a result row in percent."""
    low, high = (row["low"], row["high"]) if isinstance(row, dict) else (row.low, row.high)
    return f"[{100 * low:.0f}–{100 * high:.0f}]"


def count(value: int) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f")


def figure(value: float) -> str:
    """A small real number, such as a loss, in as few digits as are honest."""
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def chance_words(value: float) -> str:
    """A probability as a percentage that does not round a small one to nothing."""
    if value >= 0.1:
        return f"{100 * value:.0f}\u00a0%"
    return f"{100 * value:.2g}\u00a0%" if value >= 0.0001 else "<\u00a00.01\u00a0%"


def clock(text: str) -> str:
    """The time of day of a stored time, where the server is."""
    return f"{moment(text).astimezone():%H:%M:%S}"


def pretty(data: Any) -> str:
    """Plain data as YAML."""
    return yaml.safe_dump(data, allow_unicode=True, sort_keys=False).strip()


ENVIRONMENT.filters |= {
    "as_called": as_called,
    "ago": ago,
    "seconds_ago": seconds_ago,
    "browser_name": browser_name,
    "duration": duration,
    "clock": clock,
    "pretty": pretty,
    "percent": percent,
    "interval": interval,
    "bounds": bounds,
    "count": count,
    "split_name": words.split_name,
    "language_name": words.language_name,
    "metric_name": words.metric_name,
    "facts_name": words.facts_name,
    "chance_words": chance_words,
    "checkpoint_name": words.checkpoint_name,
}
ENVIRONMENT.globals |= {
    "STATES": words.STATES, "TERMS": words.TERMS, "is_admin": is_admin, "may_change": may_change, "may_run": may_run,
}  # fmt: skip
