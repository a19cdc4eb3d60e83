"""`make verify SERVICE_URL=… OAP_URL=…`: whether a service of somebody else keeps the trace contract."""

from __future__ import annotations

import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import httpx
from oap_query import Oap, OapError, segments
from rich.markup import escape

from stack.settings import UsageError
from stack.terminal import new_console
from stack.verify.lines import Lines, broken, holds
from stack.verify.rules import INSTRUMENT, Answer, check_trace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oap_query import Span

    from stack.document import Found
    from stack.settings import Settings
    from stack.verify.lines import Line

TASK_SECONDS: Final = 15.0
"""A trace counts as complete when nothing new has come for so long: tasks that take longer are not seen."""
FIRST_SPAN_SECONDS: Final = 60.0
"""How long the first span of a trace may take: with SkyWalking's own plugin it comes after the last task only."""
ANSWER_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 0.5
CALLER: Final = "make-verify"
"""The service that SkyWalking shows as the caller of these requests."""


@dataclass(frozen=True)
class Wanted:
    """Which service is checked."""

    service_url: str = ""
    """Its address; an empty text means the stack's own."""
    oap_url: str = ""
    """HTTP address of the OAP that it reports to; an empty text means the stack's own."""
    paths: Sequence[str] = ()
    """What to ask for; without any, all GET paths of its OpenAPI document that need no parameters, else `/`."""
    task_seconds: float = TASK_SECONDS


def verify_service(settings: Settings, wanted: Wanted, told: Found | None = None) -> int:
    """Send a GET request to each path of a service and check its trace; 0 when every line holds.

    Args:
        settings: say where the service and OAP are for what is not given.
        wanted: the service.
        told: gets `service_url`, `oap_url`, `holds`, `broken` and `checks`, see `Lines`; `error` where the service or
            OAP does not answer.

    Raises:
        UsageError: an address is no URL, or a path does not begin with `/`.
    """
    console, told = new_console(), {} if told is None else told
    service_url = _url("SERVICE_URL", wanted.service_url) or settings.service_url
    oap_url = (_url("OAP_URL", wanted.oap_url) or settings.oap_url).removesuffix("/graphql")
    if odd := [path for path in wanted.paths if not path.startswith("/")]:
        raise UsageError(f"PATHS has {odd[0]!r} in it, which is no path: it begins with /")
    told.update(service_url=service_url, oap_url=oap_url)
    console.print(f"the service at {escape(service_url)}, its traces in OAP at {escape(oap_url)}")
    oap, began = Oap(oap_url), datetime.now(UTC) - timedelta(seconds=1)
    try:
        _ = oap.version
        with httpx.Client(base_url=service_url, timeout=ANSWER_SECONDS) as client:
            answers = [_send(client, path) for path in wanted.paths or _paths(client)]
        with console.status("waiting for the traces"), ThreadPoolExecutor(len(answers)) as pool:
            traces = list(pool.map(lambda one: _wait(oap, one, wanted.task_seconds), answers))
        stray = _stray_roots(oap, began, [span for spans in traces for span in spans])
    except OapError as error:
        told["error"] = f"{error}: name OAP's HTTP port in OAP_URL (12800, not the agents' 11800)"
        console.print(f"[red]not verified:[/] {escape(told['error'])}")
        return 1
    except httpx.HTTPError as error:
        told["error"] = f"the service at {service_url} does not answer ({str(error) or type(error).__name__})"
        told["error"] += ": start it, or name its address in SERVICE_URL"
        console.print(f"[red]not verified:[/] {escape(told['error'])}")
        return 1
    lines = Lines(console, told)
    traced = any(traces)
    for answer, spans in zip(answers, traces, strict=True):
        if spans:
            shown = list(check_trace(answer, spans))
        elif traced and not wanted.paths and not answer.told_id:
            shown = [holds("is not traced, as health checks need not be; name it in PATHS if it should be")]
        else:
            shown = [_untraced(answer, oap_url)]
        lines.show(f"GET {answer.path}", shown, trace_id=answer.trace_id, spans=spans)
    if traced:
        lines.show("What else the service did meanwhile", [stray])
    if lines.broken:
        console.print(f"\n[red]{lines.broken} lines of the contract are broken[/]")
        return 1
    console.print("\n[green]every line of the contract holds[/]")
    return 0


def _url(name: str, text: str) -> str:
    if text and not text.startswith(("http://", "https://")):
        raise UsageError(f"{name}={text} is no address: it begins with http:// or https://")
    try:
        httpx.URL(text)
    except httpx.InvalidURL as error:
        raise UsageError(f"{name}={text} is no address ({error})") from error
    return text.rstrip("/")


def _paths(client: httpx.Client) -> list[str]:
    """Return the GET paths of the service's OpenAPI document that need no parameters; `/` where there are none."""
    try:
        document: Any = client.get("/openapi.json").raise_for_status().json()
        found = [path for path, methods in document["paths"].items() if _is_plain(path, methods)]
    except (httpx.HTTPStatusError, ValueError, LookupError, TypeError, AttributeError):
        found = []
    return found or ["/"]


def _is_plain(path: str, methods: dict[str, Any]) -> bool:
    """Whether the path can be asked for with GET as it is."""
    if "get" not in methods or "{" in path:
        return False
    parameters = [*methods.get("parameters", ()), *methods["get"].get("parameters", ())]
    return not any(parameter.get("required") for parameter in parameters)


def _send(client: httpx.Client, path: str) -> Answer:
    """Send a request as a traced caller does, so that its trace is known also where the answer does not name it."""
    trace_id, segment_id = uuid4().hex, uuid4().hex
    words = (trace_id, segment_id, "0", CALLER, CALLER, f"GET {path}", str(client.base_url.netloc, "ascii"))
    coded = [word if word == "0" else b64encode(word.encode()).decode() for word in words]
    began = time.perf_counter()
    response = client.get(path, headers={"sw8": "-".join(["1", *coded])})
    ms = (time.perf_counter() - began) * 1000
    return Answer(path, response.status_code, ms, trace_id, response.headers.get("X-Trace-Id", ""))


def _wait(oap: Oap, answer: Answer, task_seconds: float) -> list[Span]:
    """Wait until nothing new comes to a trace; none when nothing has come at all."""
    began = changed = time.monotonic()
    spans: list[Span] = []
    while True:
        found = oap.trace(answer.trace_id)
        now = time.monotonic()
        if len(found) > len(spans):
            spans, changed = found, now
        if now > (changed + task_seconds if spans else began + max(FIRST_SPAN_SECONDS, task_seconds)):
            return spans
        time.sleep(LOOK_SECONDS)


def _stray_roots(oap: Oap, began: datetime, spans: Sequence[Span]) -> Line:
    """Look for traces of the service that begin with neither a request nor a message: work that lost its request."""
    known = {span.trace_id for span in spans}
    service = next((span.service for span in spans if span.kind == "Entry"), None)
    if service is None:
        return holds("nothing that began without a request")
    rows = [row for page in segments(oap, began, service=service) for row in page if row.trace_id not in known]
    names = sorted({root for trace_id in {row.trace_id for row in rows} if (root := _stray(oap, trace_id, service))})
    if not names:
        return holds("nothing that began without a request")
    return broken(
        f"stray roots: {', '.join(names)} began traces of their own",
        "work that has lost its request, or the jobs of a scheduler, which are right to be so",
        "carry it there with `carry`, or make it in `with background_span(name):`",
    )


def _stray(oap: Oap, trace_id: str, service: str) -> str:
    """Return the name of a trace's first span where it is work of the service without a request."""
    first = min(oap.trace(trace_id), key=lambda span: (span.start, span.span_id), default=None)
    return first.name if first and first.kind != "Entry" and first.service == service and not first.refs else ""


def _untraced(answer: Answer, oap_url: str) -> Line:
    if answer.told_id:
        return broken(
            f"no trace: the answer names the trace {answer.told_id}, but OAP at {oap_url} does not have it",
            "the service reports to another OAP, or does not reach this one",
            "`python -m skywalking_background doctor`, with the service's variables, says which",
        )
    return broken(
        f"no trace: OAP at {oap_url} has none of this request, and the answer (status {answer.status}) names none",
        "the service is not traced, or reports to another OAP",
        f"add {INSTRUMENT}, and name this OAP's gRPC port in SW_AGENT_COLLECTOR_BACKEND_SERVICES",
    )
