"""Plays an incident: twice the same load, before and after one switch."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Final

import httpx
from oap_query import Oap, OapError

from stack.incidents.plays import PLAYS
from stack.incidents.record import Record, Side
from stack.incidents.stage import PlayError, Stage
from stack.runtime.run_dir import prepare

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tracing_claims.incidents import Incident

    from stack.settings import Settings

ROOMS: Final = {"neighbour": {"SERVICE_MAX_RUNNING": "15", "SERVICE_MAX_QUEUED": "5"}}
"""What an incident's service has small, whichever the setting of its switch."""


def play(settings: Settings, incident: Incident, say: Callable[[str], None]) -> Record:
    """Play an incident and return what it has shown; `run.json` in its folder has it, as far as it has come.

    Args:
        settings: of the stack, whose OAP is reported to.
        incident: which one.
        say: told what is happening, a sentence at a time.

    Raises:
        PlayError: OAP does not answer, or the service of the incident does not.
        UsageError: the run folder can't be used.
    """
    prepare(settings.run_dir)
    folder = folder_of(settings, incident.name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    record = Record(incident.name, round(time.time() * 1000))

    def step(sentence: str) -> None:
        record.step = sentence
        record.write(folder)
        say(sentence)

    try:
        oap = _oap(settings)
        step(f"before, with {incident.before}: {incident.story.partition('. ')[0]}")
        record.before = _side(settings, oap, incident, "before", folder)
        step(f"after, with {incident.after}: the same load again")
        record.after = _side(settings, oap, incident, "after", folder)
    except (PlayError, OapError, httpx.HTTPError) as error:
        record.state, record.step = "failed", str(error)
        if isinstance(error, httpx.HTTPError):
            reason = str(error) or type(error).__name__
            record.step = f"the incident’s service does not answer ({reason}): its log is in {folder}"
        record.write(folder)
        raise PlayError(record.step) from error
    except BaseException:
        record.state, record.step = "failed", "it was interrupted"
        record.write(folder)
        raise
    record.state, record.step = "done", ""
    record.write(folder)
    return record


def _oap(settings: Settings) -> Oap:
    oap = Oap(settings.oap_url, timeout=60)
    if not oap.healthy():
        message = f"OAP at {settings.oap_url} does not answer: `make up` starts one"
        raise PlayError(message)
    return oap


def folder_of(settings: Settings, name: str) -> Path:
    """Return the folder of an incident: its record, its pictures, the data and the logs of its services."""
    return settings.run_dir / "incidents" / name


def _side(settings: Settings, oap: Oap, incident: Incident, when: str, folder: Path) -> Side:
    setting = incident.before if when == "before" else incident.after
    name, _, value = setting.partition("=")
    variables = {**ROOMS.get(incident.name, {}), **({name: value} if name.startswith("SERVICE_") else {})}
    data = folder / when
    data.mkdir()
    service = f"{settings.service_name}-{incident.name}-{when}"
    seen = PLAYS[incident.name].run(Stage(settings, oap, data, service, variables), setting)
    return Side(setting, service, seen.symptom, seen.facts, seen.trace_id, seen.lanes)
