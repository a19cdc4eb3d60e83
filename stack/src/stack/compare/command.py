"""`make compare` and `make crash`: run, print, and write down what was found."""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from demo_service.variants import VARIANTS
from oap_query import Oap, OapError
from rich.markup import escape
from rich.table import Table

from stack.compare import tables
from stack.compare.brokers import RigError
from stack.compare.faults import suffer
from stack.compare.limits import throughput
from stack.compare.measure import QUICK, Found, Plan, cost, pace
from stack.compare.pictures import draw_compared, draw_crashed
from stack.compare.progress import Progress
from stack.compare.rig import Rig
from stack.crash import FAULTS, TITLES, applies
from stack.settings import ROOT, UsageError
from stack.terminal import new_console

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from demo_service.variants import Variant
    from rich.console import Console

    from stack.compare.brokers import Kind
    from stack.compare.faults import Outcome
    from stack.compare.measure import Pace
    from stack.crash import Fault
    from stack.settings import Settings

PAGE: Final = ROOT / "docs" / "alternatives.md"
REQUESTS: Final = 200
QUICK_REQUESTS: Final = 24
NAMES: Final = {"redis": "Redis", "rabbitmq": "RabbitMQ"}
BY_NAME: Final = {variant.name: variant for variant in VARIANTS}
TITLE: Final = {variant.name: variant.title for variant in VARIANTS}


def choose(names: Sequence[str]) -> list[Variant]:
    """Return the variants of these names; all without any.

    Raises:
        UsageError: there is none of a name.
    """
    if unknown := [name for name in names if name not in BY_NAME]:
        raise UsageError(f"there is no variant {unknown[0]!r}: they are {', '.join(BY_NAME)}")
    return [BY_NAME[name] for name in names] or list(VARIANTS)


def compare(
    settings: Settings, kind: Kind, names: Sequence[str] = (), *, quick: bool = False, docs: bool = False
) -> int:
    """Measure each variant, in turn in each round; 0 when all could be measured."""
    return _tell(
        settings, lambda console, oap: _compare(settings, console, oap, kind, choose(names), quick=quick, docs=docs)
    )


def crash(settings: Settings, kind: Kind, names: Sequence[str] = (), *, quick: bool = False, docs: bool = False) -> int:
    """Let each fault happen to each variant; 1 when one loses something that promises not to."""
    return _tell(
        settings, lambda console, oap: _crash(settings, console, oap, kind, choose(names), quick=quick, docs=docs)
    )


def crash_followed(settings: Settings, kind: Kind, variant: str, fault: Fault, path: Path) -> int:
    """Let one fault happen to one variant, and write into a file how far that is; 0 when it went through.

    For the console's page (`stack.crash.server`).

    Raises:
        UsageError: the variant does not exist, or can't have this fault.
    """
    (wanted,) = choose([variant])
    if not applies(wanted, fault):
        raise UsageError(f"{variant} can't have the fault {fault}: it needs no broker")
    progress = Progress(path, wanted, fault, REQUESTS)
    progress.tell()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGINT is ignored below a shell's background job
    oap: Oap | None = Oap(settings.oap_url, timeout=60)
    if oap is not None and not oap.healthy():
        oap = None
    try:
        with Rig(settings, kind, folder="page") as rig:
            suffer(rig, wanted, fault, REQUESTS, oap, progress)
    except (RigError, OapError) as error:
        progress.tell(error=str(error), ended=True)
        return 1
    except KeyboardInterrupt:
        progress.tell(error="it was ended", ended=True)
        raise
    return 0


def _tell(settings: Settings, run: Callable[[Console, Oap | None], int]) -> int:
    console = new_console()
    oap: Oap | None = Oap(settings.oap_url, timeout=60)
    if oap is not None and not oap.healthy():
        console.print(
            f"OAP at {settings.oap_url} does not answer: the traces are not looked for. `make up` starts one."
        )
        oap = None
    try:
        return run(console, oap)
    except (RigError, OapError) as error:
        console.print(f"[red]it can't go on:[/] {escape(str(error))}")
        return 1


def _compare(  # noqa: PLR0913  # what the command line says
    settings: Settings, console: Console, oap: Oap | None, kind: Kind, wanted: list[Variant], *, quick: bool, docs: bool
) -> int:
    plan = QUICK if quick else Plan()
    paces: dict[str, list[Pace]] = {variant.name: [] for variant in wanted}
    with Rig(settings, kind) as rig:
        for number in range(plan.rounds):
            first = number % len(wanted)
            for variant in wanted[first:] + wanted[:first]:
                console.print(f"round {number + 1} of {plan.rounds}: {variant.title}")
                paces[variant.name].append(pace(rig, variant, plan, oap))
        most = {}
        for variant in wanted:
            console.print(f"more and more work of 1 s: {variant.title}")
            most[variant.name] = throughput(rig, variant)
    found = {}
    for variant in wanted:
        console.print(f"start, memory, how many at once: {variant.title}")
        middle, costs = tables.middle(paces[variant.name]), cost(settings, kind, variant, plan)
        found[variant.name] = Found(middle, costs, most[variant.name])
    folder = settings.run_dir / "compare"
    title = f"{NAMES[kind]}, {plan.rounds} rounds, {_machine()}"
    picture = (PAGE.parent if docs else folder) / f"compare-{kind}.png"
    draw_compared(found, TITLE, title, picture)
    text = tables.markdown(tables.COMPARED, rows := tables.compared(found, TITLE))
    _print(console, title, tables.COMPARED, rows)
    raw = {name: {"rounds": [asdict(one) for one in paces[name]], "found": asdict(found[name])} for name in found}
    _write(console, folder / f"compare-{kind}", raw, f"{title}.\n\n{text}\n\n![{title}]({picture.name})", docs=docs)
    if docs:
        _put(
            f"choose-{kind}", f"{title}.\n\n{tables.markdown(tables.CHOSEN, tables.chosen(found, TITLE))}", needed=False
        )
    return 0


def _crash(  # noqa: PLR0913  # what the command line says
    settings: Settings, console: Console, oap: Oap | None, kind: Kind, wanted: list[Variant], *, quick: bool, docs: bool
) -> int:
    outcomes: list[Outcome] = []
    count = QUICK_REQUESTS if quick else REQUESTS
    with Rig(settings, kind) as rig:
        for fault in FAULTS:
            for variant in wanted:
                if applies(variant, fault):
                    console.print(f"{TITLES[fault]}: {variant.title}")
                    outcomes.append(suffer(rig, variant, fault, count, oap))
    folder = settings.run_dir / "compare"
    title = f"{NAMES[kind]}, {count} requests each, {_machine()}"
    picture = (PAGE.parent if docs else folder) / f"crash-{kind}.png"
    draw_crashed(outcomes, TITLE, TITLES, title, picture)
    text = f"{title}.\n"
    for name, rows in tables.crashed(outcomes, TITLE).items():
        _print(console, name, tables.CRASHED, rows)
        text += f"\n**{name}**\n\n{tables.markdown(tables.CRASHED, rows)}\n"
    raw = [asdict(one) for one in outcomes]
    _write(console, folder / f"crash-{kind}", raw, f"{text}\n![{title}]({picture.name})", docs=docs)
    broken = [one for one in outcomes if one.lost and _promises(one)]
    for one in broken:
        console.print(f"[red]{TITLE[one.variant]} lost {one.lost} at {TITLES[one.fault]},[/] and promises to lose none")
    return 1 if broken else 0


def _promises(outcome: Outcome) -> bool:
    variant = BY_NAME[outcome.variant]
    return variant.survives_term if outcome.fault == "term" else variant.survives_kill


def _machine() -> str:
    """Name the machine, with what else it has to do: figures of a busy one are of no use to anybody."""
    cores, load = os.cpu_count(), os.getloadavg()[2]
    return f"{cores} cores, load average {load:.0f}, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}"


def _print(console: Console, title: str, head: Sequence[str], rows: tables.Rows) -> None:
    table = Table(*(re.sub(r"\*", "", name) for name in head), title=title)
    for row in rows:
        table.add_row(*(re.sub(r"\*", "", cell) for cell in row))
    console.print(table)


def _write(console: Console, path: Path, raw: Any, text: str, *, docs: bool) -> None:  # noqa: ANN401  # JSON
    path.with_suffix(".json").write_text(json.dumps(raw, indent=1))
    path.with_suffix(".md").write_text(text + "\n")
    console.print(f"Written: {path.with_suffix('.md')}")
    if docs:
        _put(path.name, text)
        console.print(f"Written into {PAGE}")


def _put(mark: str, text: str, *, needed: bool = True) -> None:
    """Write something into the page, at its mark.

    Raises:
        UsageError: there is no such mark, and it is needed.
    """
    page = PAGE.read_text()
    pattern = re.compile(f"(<!-- {mark} -->\n).*?(<!-- end -->)", re.DOTALL)
    if pattern.search(page):
        PAGE.write_text(pattern.sub(lambda found: f"{found[1]}{text}\n{found[2]}", page))
    elif needed:
        raise UsageError(f"{PAGE} has no place for it: a line <!-- {mark} --> and a line <!-- end -->")
