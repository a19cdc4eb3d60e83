"""What OAP makes of the library's meters: every number read back by MQE, over two instances and at their end."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest
import yaml
from harness import ROOT, EmbeddedOap, OapServer, Server, eventually, serve
from oap_query import Metric, OapError, instances, read

if TYPE_CHECKING:
    from collections.abc import Iterator

MAL = yaml.safe_load((ROOT / "oap/config/meter-analyzer-config/background-tasks.yaml").read_text())
(DASHBOARD,) = json.loads((ROOT / "oap/config/ui-initialized-templates/general/background-tasks.json").read_text())
WIDGETS = DASHBOARD["configuration"]["children"]
HORIZON = json.loads((ROOT / "ui/horizon/background-tasks.json").read_text())
NAMES = [f"{MAL['metricPrefix']}_{rule['name']}" for rule in MAL["metricsRules"]]
OF_INSTANCES = {rule["name"] for rule in MAL["metricsRules"] if "'instance'" in rule["exp"]}
TASK = "background_sleep_task"


@pytest.fixture(scope="module")
def metered_oap(oap: OapServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OapServer]:
    """The OAP of all tests, or one of its own where that one was started without our meters."""
    question = "query ($name: String!) { kind: typeOfMetrics(name: $name) }"
    has_meters = oap.client.query(question, name=NAMES[-1])["kind"] != "UNKNOWN"
    if has_meters and (not keeps_dashboards(oap) or DASHBOARD["id"] in templates(oap)):
        yield oap
        return
    with EmbeddedOap.running(tmp_path_factory.mktemp("metered")) as own:
        yield own


@pytest.fixture(scope="module")
def service(metered_oap: OapServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Two instances of one service, after a known number of tasks with every end.

    The first reports every second, the second only at its end.
    """
    name = f"metered-{uuid4().hex[:6]}"
    options: dict[str, Any] = {"app": "demo_service.app:create_app", "arguments": ("--factory",)}
    options |= {"health": "/health/live", "SERVICE_FAULTS_ENABLED": "true"}
    grpc = metered_oap.grpc
    with (
        serve(tmp_path_factory.mktemp("service"), name, grpc, **options, SW_AGENT_METER_REPORTER_PERIOD="1") as first,
        serve(
            tmp_path_factory.mktemp("service"), name, grpc, **options, SW_AGENT_METER_REPORTER_PERIOD="3600"
        ) as second,
    ):
        for server in (first, second):
            for _ in range(4):
                ask(server, "GET", "/test?duration=2")
            ask(server, "GET", "/test?duration=0", "error;times=1")
            ask(server, "GET", "/test?duration=0", "error")
            ask(server, "POST", "/complex-action?mode=sequential&duration=0.5")
        eventually(lambda: total(metered_oap, "tasks_dead", first) == 1)
        second.stop()
        yield [first, second]


def ask(server: Server, method: str, path: str, fault: str | None = None) -> None:
    headers = {"X-Fault": fault} if fault else {}
    assert httpx.request(method, server.url + path, headers=headers, trust_env=False).is_success


def since() -> datetime:
    return datetime.now(UTC) - timedelta(minutes=10)


def instance_of(oap: OapServer, server: Server) -> str:
    """Return the name by which OAP knows a process, which people can read."""
    name = re.compile(rf"{server.name}@[^:]+:{server.process.pid}")
    (found,) = eventually(lambda: list(filter(name.fullmatch, instances(oap.client, server.name, since()))))
    return found


def points(oap: OapServer, expression: str, server: Server, **entity: Any) -> dict[int, float]:
    """Read a metric; of what has a value for each instance, all of them as one."""
    name = f"meter_background_{expression}"
    if expression in OF_INSTANCES:
        name = f"aggregate_labels({name},{'max' if expression.endswith('_ms') else 'sum'})"
    return read(oap.client, [Metric(name, server.name, **entity)], since())[0]


def of_each_instance(oap: OapServer, metric: str, service: str) -> list[dict[str, float]]:
    """Return what a metric has of each instance, by minute."""
    found = answer(oap, metric, service)["results"]
    return [{item["id"]: float(item["value"]) for item in one["values"] if item["value"]} for one in found]


def keeps_dashboards(oap: OapServer) -> bool:
    """Say whether this OAP has those of its UI: 11 leaves them to Horizon."""
    fields = oap.client.query('{ __type(name: "Query") { fields { name } } }')["__type"]["fields"]
    return "getAllTemplates" in {field["name"] for field in fields}


def templates(oap: OapServer) -> dict[str, Any]:
    """Return the dashboards that SkyWalking's UI gets from OAP."""
    found = oap.client.query("{ found: getAllTemplates { id configuration } }")["found"]
    return {one["id"]: json.loads(one["configuration"]) for one in found}


def answer(oap: OapServer, expression: str, service: str | None) -> dict[str, Any]:
    """Evaluate an expression as the UI does; without a service it is of all of them."""
    text = """query ($e: String!, $n: Entity!, $d: Duration!) {
        found: execExpression(expression: $e, entity: $n, duration: $d) { error results { values { id value } } } }"""
    (duration,) = oap.client.durations(since(), step="MINUTE")
    found: dict[str, Any] = oap.client.query(
        text, e=expression, n={**Metric("", "").entity, "serviceName": service}, d=duration
    )["found"]
    return found


def total(oap: OapServer, expression: str, server: Server, **entity: Any) -> float | None:
    """Add a counter up over all minutes; `None` when nobody reported one."""
    found = points(oap, expression, server, **entity)
    return sum(found.values()) if found else None


ENDS = {"started": 18, "succeeded": 16, "failed": 2, "cancelled": 0, "dead": 2, "crashed": 0}


@pytest.mark.parametrize("what", ENDS)
def test_each_end_is_counted_over_all_instances(metered_oap: OapServer, service: list[Server], what: str) -> None:
    assert eventually(lambda: total(metered_oap, f"tasks_{what}", service[0]) == ENDS[what]), total(
        metered_oap, f"tasks_{what}", service[0]
    )
    ends = {"started": 12, "succeeded": 10, "failed": 2, "cancelled": 0, "dead": 2, "crashed": 0}
    assert total(metered_oap, f"task_{what}", service[0], endpoint=TASK) == ends[what]


def test_retries_are_counted(metered_oap: OapServer, service: list[Server]) -> None:
    retried = eventually(lambda: total(metered_oap, "tasks_retried", service[0]))
    # One of the task that failed once; those of the other are the policy's.
    assert retried is not None
    assert retried >= 4
    assert total(metered_oap, "task_retried", service[0], endpoint=TASK) == retried
    assert total(metered_oap, "task_retried", service[0], endpoint="task1") == 0


def test_what_ran_at_once_is_known_of_each_instance(metered_oap: OapServer, service: list[Server]) -> None:
    for server in service:
        mine = f"tasks_running{{instance='{instance_of(metered_oap, server)}'}}"
        assert max(eventually(lambda: points(metered_oap, mine, server)).values()) >= 4  # noqa: B023  # now
    assert max(points(metered_oap, "task_running", service[0], endpoint=TASK).values()) >= 4
    assert max(points(metered_oap, "tasks_running", service[0]).values()) >= 4


def test_what_the_service_has_is_the_sum_of_its_instances_the_most_of_each_minute(
    metered_oap: OapServer, service: list[Server]
) -> None:
    """The first instance reports each second: of a minute OAP keeps its highest value, and not its first."""
    name = service[0].name
    assert eventually(lambda: len(of_each_instance(metered_oap, "meter_background_tasks_running", name)) == 2)
    parts = of_each_instance(metered_oap, "meter_background_tasks_running", name)
    whole = {str(minute): value for minute, value in points(metered_oap, "tasks_running", service[0]).items()}
    assert set(whole) == {minute for part in parts for minute in part}
    for minute, value in whole.items():
        assert value == sum(part.get(minute, 0) for part in parts)
    assert [max(part.values()) >= 4 for part in parts] == [True, True]
    with pytest.raises(OapError, match="has 2 series"):
        read(metered_oap.client, [Metric("meter_background_tasks_running", name)], since())


def test_dashboards_and_alarms_ask_only_for_meters_that_there_are() -> None:
    alarms = (ROOT / "oap/config/alarm-settings.yml").read_text()
    for text in (json.dumps(DASHBOARD["configuration"]), json.dumps(HORIZON), alarms):
        used = set(re.findall(r"meter_\w+", text))
        assert used
        assert not used - set(NAMES)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("run_time_percentile{p='99'}", range(2_000, 60_000)),
        ("run_time_percentile{p='50'}", range(450, 60_000)),
        ("queue_delay_percentile{p='99'}", range(900, 60_000)),  # the third of three that run one after the other
        ("longest_task_ms", range(600_000)),
        ("loop_lag_ms", range(600_000)),
        ("tasks_queued", range(10)),
        ("segments_sent", range(1, 1_000)),
        ("segments_dropped", range(1)),
        ("segments_queued", range(1_000)),
    ],
)
def test_the_service_has(metered_oap: OapServer, service: list[Server], metric: str, expected: range) -> None:
    values = eventually(lambda: points(metered_oap, metric, service[0]))
    assert int(max(values.values())) in expected


@pytest.mark.parametrize(
    ("task", "metric", "expected"),
    [
        (TASK, "task_run_time_ms", range(1_000, 60_000)),
        (TASK, "task_run_time_percentile{p='99'}", range(2_000, 60_000)),
        ("task3", "task_queue_delay_ms", range(900, 60_000)),
        ("task3", "task_queue_delay_percentile{p='50'}", range(900, 60_000)),
        ("task3", "task_queued", range(10)),
    ],
)
def test_a_task_has(  # a row of a table
    metered_oap: OapServer, service: list[Server], task: str, metric: str, expected: range
) -> None:
    values = eventually(lambda: points(metered_oap, metric, service[0], endpoint=task))
    assert int(max(values.values())) in expected


def test_the_slowest_tasks_are_a_list(metered_oap: OapServer, service: list[Server]) -> None:
    found = answer(metered_oap, "top_n(meter_background_task_run_time_ms,10,des)", service[0].name)
    names = [item["id"].split(" - ")[-1] for item in found["results"][0]["values"]]
    assert names[0] == TASK
    assert {"task1", "task2", "task3"} <= set(names)


def test_the_dashboard_is_there_without_a_click(metered_oap: OapServer) -> None:
    if not keeps_dashboards(metered_oap):
        pytest.skip("this OAP has no dashboards: Horizon brings them")
    assert templates(metered_oap)[DASHBOARD["id"]] == DASHBOARD["configuration"]


def values(oap: OapServer, expression: str, service: str | None) -> list[Any]:
    """Return what an expression has, of all its labels; an error of it is one of ours."""
    found = answer(oap, expression, service)
    assert not found["error"], found["error"]
    return [item["value"] for result in found["results"] for item in result["values"] if item["value"] is not None]


@pytest.mark.parametrize(
    "expression", [pytest.param(one, id=w["widget"]["title"]) for w in WIDGETS for one in w.get("expressions", ())]
)
def test_each_widget_has_data(metered_oap: OapServer, service: list[Server], expression: str) -> None:
    assert eventually(lambda: values(metered_oap, expression, service[0].name))


def of_horizon(widget: dict[str, Any]) -> list[str]:
    return [kpi["mqe"].replace("{{topn}}", "20") for kpi in widget.get("kpis", ())]


@pytest.mark.parametrize("expression", [one for widget in HORIZON["widgets"] for one in of_horizon(widget)])
def test_each_tile_of_horizon_asks_for_what_is_there(
    metered_oap: OapServer, service: list[Server], expression: str
) -> None:
    if metered_oap.client.version.startswith("10.1."):
        expression = expression.replace(",attr0='GENERAL'", "")  # known from OAP 10.2 on
    about = None if "top_n" in expression else service[0].name
    assert eventually(lambda: values(metered_oap, expression, about))


def test_starts_drains_and_ends_are_on_the_timeline(metered_oap: OapServer, service: list[Server]) -> None:
    text = """query ($c: EventQueryCondition) { found: queryEvents(condition: $c) {
        events { name type source { serviceInstance } } } }"""
    (duration,) = metered_oap.client.durations(since(), step="MINUTE")
    condition = {"source": {"service": service[0].name}, "time": duration, "paging": {"pageNum": 1, "pageSize": 50}}

    def names() -> set[str]:
        found = metered_oap.client.query(text, c=condition)["found"]["events"]
        ours = instance_of(metered_oap, service[1])
        return {one["name"] for one in found if one["source"]["serviceInstance"] == ours}

    assert eventually(lambda: names() >= {"Start", "Drain", "Shutdown"}), names()


def test_no_meter_is_left_without_a_test() -> None:
    asked = Path(__file__).read_text()
    bare = {name.removeprefix("meter_background_") for name in NAMES}
    counters = {f"{kind}_{what}" for kind in ("task", "tasks") for what in (*ENDS, "retried")}
    assert not {name for name in bare - counters if not re.search(rf'"{name}[{{"]', asked)}


PVM = ["total_cpu", "process_cpu", "total_mem", "process_mem"]


@pytest.mark.parametrize(
    "name", [*(f"{one}_utilization" for one in PVM), "thread_active_count", "gc_g0", "gc_g1", "gc_g2", "gc_time"]
)
def test_the_tab_of_the_runtime_is_filled(metered_oap: OapServer, service: list[Server], name: str) -> None:
    metric = Metric(f"meter_instance_pvm_{name}", service[0].name, instance=instance_of(metered_oap, service[0]))
    found = eventually(lambda: read(metered_oap.client, [metric], since())[0])
    assert found
    assert 0 <= max(found.values()) <= (100 if "utilization" in name else 60_000)
