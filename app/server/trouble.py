"""A database that is damaged, in use or on a full disk, met while the lab runs: one sentence, wherever that is."""

from __future__ import annotations

import functools
import inspect
import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response

from app.shared.words import sentence
from storage.acting import NotAllowed
from storage.trouble import is_disk_full, say_trouble

logger = logging.getLogger("app")


def say_troubles(site: FastAPI, pages: gr.Blocks) -> None:
    """Have what pages and downloads do say in one sentence what is wrong with the lab's files."""

    def told(request: Request, error: Exception) -> Response:
        return PlainTextResponse(sentence(say_trouble(error)), 503)

    site.add_exception_handler(sqlite3.Error, told)
    for function in pages.fns.values():
        if function.fn is not None:
            # What a page does by itself each second says nothing: the person's next click does.
            quiet = bool(function.targets) and all(event == "tick" for _, event in function.targets)
            function.fn = _saying(function.fn, visible=not quiet)


def _saying(act: Callable[..., Any], visible: bool) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(act):

        @functools.wraps(act)
        async def waiting(*given: Any, **named: Any) -> Any:
            with _told(visible):
                return await act(*given, **named)

        return waiting

    @functools.wraps(act)
    def saying(*given: Any, **named: Any) -> Any:
        with _told(visible):
            return act(*given, **named)

    return saying


@contextmanager
def _told(visible: bool) -> Iterator[None]:
    try:
        yield
    except NotAllowed as error:
        raise gr.Error(sentence(str(error)), visible=visible, print_exception=False) from error
    except (sqlite3.Error, OSError) as error:
        if isinstance(error, OSError) and not is_disk_full(error):
            raise
        words = sentence(say_trouble(error))
        logger.warning(words)
        raise gr.Error(words, duration=None, visible=visible, print_exception=False) from error
