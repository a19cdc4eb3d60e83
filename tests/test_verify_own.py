"""`make verify SERVICE_URL=… OAP_URL=…`: services of somebody else, traced rightly, wrongly, and not at all."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from harness import free_port, serve
from oap_query import Span
from stack.settings import Settings, UsageError
from stack.verify import Answer, Wanted, check_trace, own_service, verify_service

if TYPE_CHECKING:
    from pathlib import Path

    from harness import OapServer

PLUGIN = "SkyWalking's own FastAPI plugin"


def lines_of(told: dict[str, Any], title: str) -> dict[str, bool]:
    (check,) = [check for check in told["checks"] if check["title"] == title]
    return {line["text"]: line["holds"] for line in check["lines"]}


def verified(traced_by: str, oap: OapServer, folder: Path, *paths: str) -> tuple[int, dict[str, Any]]:
    told: dict[str, Any] = {}
    with serve(folder, f"own-{traced_by}", oap.grpc, app="own_app:app", TRACED_BY=traced_by) as service:
        wanted = Wanted(service.url, oap.url, paths, task_seconds=6)
        return verify_service(Settings(), wanted, told), told


def test_a_service_that_uses_the_library_keeps_every_line(
    oap: OapServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = verified("library", oap, tmp_path)
    assert (code, told["holds"], told["broken"]) == (0, True, 0), told
    assert [check["title"] for check in told["checks"][:-1]] == ["GET /orders"], (
        "paths that need parameters are left out"
    )
    texts = " ".join(lines_of(told, "GET /orders"))
    assert "joins the trace of its caller" in texts
    assert "entry span ends with the response" in texts
    assert re.search(r"send_mail has a span of its own: 2,\d\d\d ms, from \d+ ms after the response", texts)
    assert "send_mail hangs below its request: CROSS_THREAD" in texts
    assert "⇢ send_mail" in capsys.readouterr().out


def test_a_failed_task_blames_nobody_and_lost_work_is_named(oap: OapServer, tmp_path: Path) -> None:
    code, told = verified("library", oap, tmp_path, "/failing", "/losing")
    assert (code, told["broken"]) == (1, 1), told
    assert all(lines_of(told, "GET /failing").values())
    (stray,) = lines_of(told, "What else the service did meanwhile")
    assert stray.startswith("stray roots: lost_work began traces of their own")
    assert "`carry`" in stray


def test_skywalkings_own_plugin_is_named_and_what_it_costs(oap: OapServer, tmp_path: Path) -> None:
    code, told = verified("plugin", oap, tmp_path, "/orders", "/failing")
    assert (code, told["holds"]) == (1, False)
    broken = [text for text, holds in lines_of(told, "GET /orders").items() if not holds]
    assert len(broken) == 2, broken
    assert re.match(r"entry span of 2,\d\d\d ms, though the answer was complete after [\d.]+ ms: ", broken[0])
    assert PLUGIN in broken[0]
    assert "no span for the background task" in broken[1]
    assert "`app = instrument(app)`" in broken[1]
    blamed = " ".join(text for text, holds in lines_of(told, "GET /failing").items() if not holds)
    assert "the entry span is marked as an error, though the answer was 200" in blamed


def test_a_service_without_traces_is_told_what_to_add(
    oap: OapServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_service, "FIRST_SPAN_SECONDS", 3)
    code, told = verified("nothing", oap, tmp_path, "/orders")
    assert code == 1
    ((text, holds),) = lines_of(told, "GET /orders").items()
    assert not holds
    assert text.startswith(f"no trace: OAP at {oap.url} has none of this request")
    assert "`app = instrument(app)`" in text


def test_a_service_that_reports_to_another_oap_is_told_so(
    oap: OapServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_service, "FIRST_SPAN_SECONDS", 3)
    told: dict[str, Any] = {}
    elsewhere = f"127.0.0.1:{free_port()}"
    with serve(tmp_path, "own-elsewhere", elsewhere, app="own_app:app", TRACED_BY="library") as service:
        assert verify_service(Settings(), Wanted(service.url, oap.url, ["/orders"], task_seconds=3), told) == 1
    ((text, _),) = lines_of(told, "GET /orders").items()
    assert "the answer names the trace" in text
    assert "`python -m skywalking_background doctor`" in text


def test_wrong_addresses_are_called_so(oap: OapServer) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    told: dict[str, Any] = {}
    assert verify_service(Settings(), Wanted(nobody, nobody), told) == 1
    assert told["error"].startswith(f"OAP at {nobody} does not answer")
    assert "OAP_URL (12800, not the agents' 11800)" in told["error"]
    assert verify_service(Settings(), Wanted(nobody, f"{oap.url}/graphql/"), told) == 1
    assert told["error"].startswith(f"the service at {nobody} does not answer")
    with pytest.raises(UsageError, match=r"OAP_URL=127\.0\.0\.1:12800 is no address"):
        verify_service(Settings(), Wanted(nobody, "127.0.0.1:12800"))
    with pytest.raises(UsageError, match="'orders' in it, which is no path"):
        verify_service(Settings(), Wanted(nobody, nobody, ["orders"]))


def span(name: str, kind: str, start: int, end: int, **changes: Any) -> Span:
    values = {
        "trace_id": "t",
        "segment_id": name,
        "span_id": 0,
        "parent_span_id": -1,
        "refs": (),
        "service": "shop",
        "instance": "one",
        "name": name,
        "kind": kind,
        "peer": "",
        "component": "",
        "layer": "",
        "error": False,
        "start": start,
        "end": end,
        "tags": {},
        "logs": (),
    }
    return Span(**{**values, **changes})


def broken_of(*spans: Span, status: int = 200, ms: float = 10, told: str = "") -> list[str]:
    return [text for good, text in check_trace(Answer("/", status, ms, "sent", told), spans) if not good]


REQUEST = span("HTTP GET /", "Entry", 0, 10)


def test_each_rule_has_its_sentence() -> None:
    task = span("task", "Local", 12, 50, refs=(("HTTP GET /", 0, "CROSS_THREAD"),))
    assert broken_of(REQUEST, task) == []
    assert "no entry span" in broken_of(task)[0]
    assert "takes the header sw8 away" in broken_of(REQUEST, told="other")[0]
    orphan = span("orphan", "Local", 12, 50, refs=(("gone", 0, "CROSS_THREAD"),))
    assert "stray roots: orphan" in broken_of(REQUEST, orphan)[0]
    outliving = span("late", "Local", 5, 500, segment_id="HTTP GET /", span_id=1, parent_span_id=0)
    assert "late is in the request's segment and ends 490 ms after" in broken_of(REQUEST, outliving)[0]
    late = span("late", "Local", 12, 50, refs=(("HTTP GET /", 0, "CROSS_PROCESS"),))
    assert "though both are in one process" in broken_of(REQUEST, late)[0]
    pooled = span("pooled", "Local", 12, 50, instance="two", refs=(("HTTP GET /", 0, "CROSS_PROCESS"),))
    assert broken_of(REQUEST, pooled) == []
    early = span("early", "Local", -30, 50, refs=(("HTTP GET /", 0, "CROSS_THREAD"),))
    assert "clocks" in broken_of(REQUEST, early)[0]
    failed = span("HTTP GET /", "Entry", 0, 10, error=True)
    assert "the success rate is wrong" in broken_of(failed)[0]
    assert broken_of(failed, status=500) == []
