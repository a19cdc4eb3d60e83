"""`make compare` and `make crash`: run, print, and write down what was found."""

from __future__ import annotations

import json
import os
import platform
import re
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from oap_query import Oap, OapError
from rich.markup import escape
from rich.table import Table
from tracing_claims.variants import BY_NAME, FAULTS, VARIANTS

from stack.compare import tables
from stack.compare.brokers import RigError
from stack.compare.faults import suffer
from stack.compare.limits import throughput
from stack.compare.measure import QUICK, Found, Plan, cost, pace
from stack.compare.pictures import draw_compared, draw_crashed
from stack.compare.progress import Progress
from stack.compare.rig import Rig
from stack.settings import ROOT, UsageError
from stack.terminal import new_console

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rich.console import Console
    from tracing_claims.variants import Fault, Variant

    from stack.compare.brokers import Kind
    from stack.compare.faults import Outcome
    from stack.compare.measure import Pace
    from stack.settings import Settings

PAGE: Final = ROOT / "docs" / "alternatives.md"
REQUESTS: Final = 200
QUICK_REQUESTS: Final = 24
NAMES: Final = {"redis": "Redis", "rabbitmq": "RabbitMQ"}
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


def crash(  # noqa: PLR0913  # what the command line says
    settings: Settings,
    kind: Kind,
    names: Sequence[str] = (),
    faults: Sequence[Fault] = (),
    *,
    quick: bool = False,
    docs: bool = False,
) -> int:
    """Let each fault happen to each variant; 1 when one loses something that promises not to.

    Raises:
        UsageError: there is no such variant, or none that can have such a fault.
    """
    wanted = choose(names)
    pairs = [(one, fault) for fault in FAULTS if fault in (faults or FAULTS) for one in wanted if fault in one.faults]
    if not pairs:
        raise UsageError(f"none of {', '.join(one.name for one in wanted)} can have the fault {' or '.join(faults)}")
    return _tell(settings, lambda console, oap: _crash(settings, console, oap, kind, pairs, quick=quick, docs=docs))


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
    settings: Settings,
    console: Console,
    oap: Oap | None,
    kind: Kind,
    pairs: list[tuple[Variant, Fault]],
    *,
    quick: bool,
    docs: bool,
) -> int:
    outcomes: list[Outcome] = []
    count = QUICK_REQUESTS if quick else REQUESTS
    progress = Progress(settings.run_dir / "compare" / "progress.json")
    progress.begin(*pairs[0], count)
    try:
        with Rig(settings, kind) as rig:
            for variant, fault in pairs:
                console.print(f"{FAULTS[fault]}: {variant.title}")
                progress.begin(variant, fault, count)
                outcomes.append(suffer(rig, variant, fault, count, oap, progress))
    except BaseException as error:
        progress.tell(error=str(error) or "it was ended")
        raise
    finally:
        progress.tell(ended=True)
    folder = settings.run_dir / "compare"
    title = f"{NAMES[kind]}, {count} requests each, {_machine()}"
    picture = (PAGE.parent if docs else folder) / f"crash-{kind}.png"
    draw_crashed(outcomes, TITLE, title, picture)
    text = f"{title}.\n"
    for name, rows in tables.crashed(outcomes, TITLE).items():
        _print(console, name, tables.CRASHED, rows)
        text += f"\n**{name}**\n\n{tables.markdown(tables.CRASHED, rows)}\n"
    raw = [asdict(one) for one in outcomes]
    _write(console, folder / f"crash-{kind}", raw, f"{text}\n![{title}]({picture.name})", docs=docs)
    broken = [one for one in outcomes if one.lost and BY_NAME[one.variant].faults[one.fault]]
    for one in broken:
        console.print(f"[red]{TITLE[one.variant]} lost {one.lost} at {FAULTS[one.fault]},[/] and promises to lose none")
    return 1 if broken else 0


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
