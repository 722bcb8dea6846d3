"""The command line: `rote-lab COMMAND` once the package is installed, and in a checkout

python -m engine presets
python -m engine readings [RELATION|FILE]
python -m engine models list|install NAME|remove NAME [--home DIR]
python -m engine run PRESET|FILE [--set stage1.epochs=10 …] [--seed N] [--home DIR] [--results FILE.json]
python -m engine attack PRESET|FILE|ID [--home DIR] [--results FILE.json]
python -m engine study PRESET|FILE|ID [--model NAME] [--home DIR] [--results FILE.json]
python -m engine import FILE.csv [FILE.csv …] [--relation NAME …] [--to FILE.yaml]
python -m engine export task|model RUN --to FOLDER [--checkpoint NAME] [--home DIR]
python -m engine export dataset RUN|PRESET|FILE --to FOLDER [--licence NAME]
python -m engine export database --to FOLDER [--home DIR]
python -m engine record RUN [RUN …] --to FILE.json.xz
python -m engine backup FILE.tar | verify [FILE.tar] | restore FILE.tar [--home DIR]
python -m engine bundle make ID FILE.tar | bundle open FILE.tar [--home DIR]
python -m engine disk [--clean] [--home DIR]
python -m engine users add|list|password|remove NAME [--home DIR]
python -m engine worker [--home DIR]
python -m engine serve RUN [--backend auto|vllm|embedded] [--port N]
python -m engine ask RUN --subject NAME [--prompt TEXT] [--json]

Exit code 0 only on success; a user's mistake is one line on standard error and exit code 2.
"""

from __future__ import annotations

import sqlite3
import sys

import typer

from engine.commands import run
from engine.commands.ask import ask_command
from engine.commands.attack import attack
from engine.commands.backup import backup_command, bundle_app, disk_command, restore_command, verify_command
from engine.commands.export import export_app
from engine.commands.import_facts import import_command
from engine.commands.mistake import Mistake
from engine.commands.models import models_app
from engine.commands.program import options
from engine.commands.readings import readings_command
from engine.commands.record import record_command
from engine.commands.serve import serve
from engine.commands.study import study
from engine.commands.users import users_app
from engine.commands.worker import worker
from storage.trouble import say_trouble

app = typer.Typer(add_completion=False, rich_markup_mode=None)
app.callback()(options)

for command in (run.presets, run.show, run.later, run.run, run.queue, run.runs, run.cancel, run.retry, run.results):
    app.command()(command)
app.command()(worker)
app.command("readings")(readings_command)
app.add_typer(models_app, name="models")
app.command()(attack)
app.command()(study)
app.command("import")(import_command)
app.add_typer(export_app, name="export")
app.command("record")(record_command)
app.command("backup")(backup_command)
app.command("verify")(verify_command)
app.command("restore")(restore_command)
app.add_typer(bundle_app, name="bundle")
app.command("disk")(disk_command)
app.add_typer(users_app, name="users")
app.command()(serve)
app.command("ask")(ask_command)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        outcome = app(words or ["--help"], standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    except Mistake as error:
        message = str(error)
    except typer.TyperException as error:
        # For an option's value this text also names the option.
        context = getattr(error, "ctx", None)
        message = error.format_message() + (f" (see {context.command_path} --help)" if context else "")
    except (sqlite3.Error, OSError) as error:
        message = say_trouble(error)
    except (typer.Abort, KeyboardInterrupt):
        message = "stopped"
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2
