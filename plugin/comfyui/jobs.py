"""Waits for jobs of the library: shows what they say, and stops them when ComfyUI stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import comfy.model_management
from comfy.model_management import InterruptProcessingException
from comfy.utils import ProgressBar
from comfy_execution.utils import get_executing_context
from PIL import Image
from server import PromptServer

from .native import ErrorKind, Event, EventKind, Job, Value, VocableError

# Between two looks at a job. The library keeps the newest picture and status, and all log lines, until then.
POLL_SECONDS = 0.05
# A job that was told to stop does within a second. This is for machines under load.
STOP_SECONDS = 10.0

_LEVELS = {1: logging.DEBUG, 2: logging.INFO, 3: logging.WARNING, 4: logging.ERROR}


class Show:
    """Puts what a job says onto its node."""

    def __init__(self, title: str) -> None:
        # ComfyUI offers the node's id as a hidden input, too, but that makes every later result depend on the id.
        context = get_executing_context()
        self.node_id = context.node_id if context else None
        self.title = title

    def event(self, event: Event) -> None:
        """Whatever happened. May raise ComfyUI's exception for an interrupted run."""
        if event.kind == EventKind.PROGRESS:
            self.progress(*event.progress, event.picture())
        elif event.kind == EventKind.STATUS:
            self.status(event.text)
        elif event.kind == EventKind.LOG:
            logging.log(_LEVELS.get(event.level, logging.INFO), "%s: %s", self.title, event.text)

    def progress(self, step: int, total: int, picture: tuple[int, int, bytes] | None = None) -> None:
        """The bar, and the picture if there is one. A new bar each time: ComfyUI holds back updates of an old one."""
        preview = None
        if picture:
            width, height, rgb = picture
            preview = ("JPEG", Image.frombytes("RGB", (width, height), rgb), None)
        if self.node_id is not None and total > 0:
            ProgressBar(total, self.node_id).update_absolute(min(step, total), total, preview)

    def status(self, text: str) -> None:
        """The line of text under the node. The editor reads it as HTML, in which a word such as <my-cat> would vanish."""
        server = getattr(PromptServer, "instance", None)
        if server is not None and self.node_id is not None and text:
            text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            server.send_progress_text(text, self.node_id, server.client_id)


# The run that the user stopped last. ComfyUI takes its flag down as soon as one task has seen it, but a node that is mapped over a list runs as
# several tasks at once, and all of them are meant.
_stopped_run: str | None = None
_at_work = False


def _this_run() -> str | None:
    context = get_executing_context()
    return context.prompt_id if context else None


def _mark_stopped() -> None:
    global _stopped_run
    _stopped_run = _this_run()


def raise_if_interrupted() -> None:
    """Raises ComfyUI's exception if the user has pressed Interrupt."""
    try:
        comfy.model_management.throw_exception_if_processing_interrupted()
    except InterruptProcessingException:
        _mark_stopped()
        raise
    if _stopped_run is not None and _stopped_run == _this_run():
        raise InterruptProcessingException


@contextlib.asynccontextmanager
async def turn() -> AsyncIterator[None]:
    """One node of ours after the other: each takes all threads and much memory, and ComfyUI would start all runs of a mapped node at once."""
    global _at_work
    while _at_work:
        raise_if_interrupted()
        await asyncio.sleep(POLL_SECONDS)
    _at_work = True
    try:
        yield
    finally:
        _at_work = False


async def finish(job: Job, show: Show) -> tuple[Value, dict[str, Any] | None]:
    """Waits until the job is done, and answers its results and what the node shows; raises what went wrong."""
    interrupted = False
    try:
        while True:
            try:
                if not interrupted:
                    raise_if_interrupted()
                event = job.poll()
                if event is None:
                    await asyncio.sleep(POLL_SECONDS)
                    continue
                if event.kind == EventKind.DONE:
                    break
                if not interrupted:
                    show.event(event)
            except InterruptProcessingException:
                _mark_stopped()
                interrupted = True
                job.cancel()
        return _outcome(job, show, interrupted)
    except asyncio.CancelledError:
        # The graph ended elsewhere, by an error or an interruption of another node.
        _stop(job)
        raise
    finally:
        job.free()


def _outcome(job: Job, show: Show, interrupted: bool) -> tuple[Value, dict[str, Any] | None]:
    try:
        results = job.take_outputs()
    except VocableError as error:
        if error.kind is not ErrorKind.CANCELLED:
            raise
        logging.info("%s was stopped. %s", show.title, error.help)
        show.status(f"stopped. {error.help}".strip())
        raise InterruptProcessingException from error
    if interrupted:
        # It was done before it heard of it; the user's wish still stands.
        raise InterruptProcessingException
    return results


def _stop(job: Job) -> None:
    """Cancels a job and waits until it is done, so that what it keeps is written."""
    job.cancel()
    for _ in range(int(STOP_SECONDS * 10)):
        event = job.poll(100)
        if event is not None and event.kind == EventKind.DONE:
            return
