from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import pickle
import threading
import time
import weakref
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from skywalking import config, sampling
from skywalking.trace.context import NoopContext, get_context
from skywalking_background import background_span, carry, current_trace_id, tag, untraced
from skywalking_background._internals import SpanContext, set_open_spans
from skywalking_background._light_spans import noop_span
from skywalking_background._names import span_name
from skywalking_background._segments import Context, Origin
from skywalking_background._spans import keep
from trees import find, names, outline, tree

Segments = list[Any]


def tags(span: Any) -> dict[str, str]:
    return {tag.key: tag.val for tag in span.iter_tags()}


def test_outside_of_a_trace_it_starts_one(segments: Segments) -> None:
    with background_span("alone", tags={"task.id": 7}) as span:
        trace_id = current_trace_id()
        span.tag("outcome", "done")
    (segment,) = segments
    assert str(segment.related_traces[0]) == trace_id
    assert [(span.op, span.refs) for span in segment.spans] == [("alone", [])]
    assert tags(segment.spans[0]) == {"task.id": "7", "outcome": "done"}
    assert current_trace_id() is None


def test_directly_inside_another_it_is_a_child_of_the_same_segment(segments: Segments) -> None:
    with background_span("task"), background_span("attempt"):
        pass
    (segment,) = segments
    assert [(span.op, span.sid, span.pid) for span in segment.spans] == [("attempt", 1, 0), ("task", 0, -1)]


async def test_in_another_asyncio_task_it_has_a_segment_of_its_own(segments: Segments) -> None:
    async def child() -> None:
        with background_span("child"):
            await asyncio.sleep(0)

    with background_span("task"):
        running = asyncio.create_task(child())
    await running  # it ends after the span that it came from
    task, child_segment = segments
    (ref,) = child_segment.spans[0].refs
    assert (ref.ref_type, ref.segment_id, ref.span_id) == ("CrossThread", str(task.segment_id), 0)
    assert str(child_segment.related_traces[0]) == str(task.related_traces[0])


def test_carry_takes_the_trace_into_a_thread(segments: Segments) -> None:
    seen: list[str | None] = []
    with background_span("task"):
        expected = current_trace_id()
        thread = threading.Thread(target=carry(lambda: seen.append(current_trace_id()), name="in_thread"))  # type: ignore[misc]
    thread.start()
    thread.join()
    assert seen == [expected]
    assert [span.op for segment in segments for span in segment.spans] == ["task", "in_thread"]


async def test_carry_wraps_a_coroutine_function_and_keeps_its_result(segments: Segments) -> None:
    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    assert await carry(double)(21) == 42
    assert segments[0].spans[0].op.endswith("double")


def test_what_is_not_sampled_stays_out_with_all_below_it(segments: Segments) -> None:
    set_open_spans([noop_span()])
    with background_span("task"), background_span("attempt"):
        assert current_trace_id() is None
    assert segments == []


def test_untraced_work_leaves_nothing_and_the_trace_goes_on_after_it(segments: Segments) -> None:
    with background_span("task"):
        with untraced():
            assert current_trace_id() is None
            with get_context().new_exit_span("INSERT", "db:5432"):
                pass
        assert current_trace_id() is not None
    assert [span.op for segment in segments for span in segment.spans] == ["task"]


def test_the_span_that_the_code_runs_in_can_be_tagged_from_anywhere(segments: Segments) -> None:
    tag("nobody", "sees it")
    with background_span("task"), get_context().new_local_span("below"):
        tag("color", "red")
    assert [tags(span) for span in segments[0].spans] == [{"color": "red"}, {}]


async def test_a_span_that_has_ended_is_not_tagged_any_more(segments: Segments) -> None:
    async def late() -> None:
        await asyncio.sleep(0.01)
        tag("too", "late")

    with background_span("task"):
        running = asyncio.create_task(late())
    span = segments[0].spans[0]
    await running
    assert tags(span) == {}


def test_what_deserves_a_span_may_turn_out_afterwards(segments: Segments) -> None:
    began = time.time() - 2
    with background_span("attempt", began=began) as span:
        span.record_error(ValueError("broken"))
    (recorded,) = segments[0].spans
    assert recorded.start_time == int(began * 1000)
    assert recorded.end_time - recorded.start_time >= 2000
    assert recorded.error_occurred
    assert recorded.logs[0].items[2].val == "broken"


def test_inside_a_span_of_one_of_the_agents_plugins_it_joins_that_trace(segments: Segments) -> None:
    with get_context().new_entry_span("celery/resize") as outer:
        expected = str(outer.context.segment.related_traces[0])
        assert current_trace_id() == expected
        with background_span("step"):
            assert current_trace_id() == expected
    step, consumer = segments
    (ref,) = step.spans[0].refs
    assert (ref.ref_type, ref.trace_id, ref.segment_id) == ("CrossThread", expected, str(consumer.segment_id))
    assert current_trace_id() is None


def test_inside_a_span_that_is_not_sampled_it_is_not_either(segments: Segments) -> None:
    with NoopContext().new_entry_span("celery/resize"), background_span("step"):
        assert current_trace_id() is None
    assert segments == []


def test_what_is_finished_is_freed_without_the_garbage_collector(segments: Segments) -> None:
    gc.disable()
    try:
        with background_span("task"), get_context().new_exit_span("call", "peer:80"):
            context = weakref.ref(get_context())
            get_context().primary_endpoint.get_name()  # what a log line asks for
        assert context() is not None  # the segment below has it
        segments.clear()
        assert context() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("error", [ValueError("broken"), asyncio.CancelledError(), KeyboardInterrupt()])
def test_an_error_is_recorded_and_goes_on(segments: Segments, error: BaseException) -> None:
    with pytest.raises(type(error)), background_span("task"):
        raise error
    span = segments[0].spans[0]
    assert span.error_occurred
    log = {item.key: item.val for item in span.logs[0].items}
    assert log["event"] == "error"
    assert log["error.kind"] == type(error).__name__
    assert log["message"] == str(error)
    assert "raise error" in log["stack"]
    assert span.logs[0].timestamp * 1000 >= span.start_time


def test_an_errors_stack_has_its_last_frames(segments: Segments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "agent_cause_exception_depth", 3)

    def deeper(number: int) -> None:
        if not number:
            raise ValueError("deep down")
        deeper(number - 1)

    with pytest.raises(ValueError, match="deep"), background_span("task"):
        deeper(20)
    stack = segments[0].spans[0].logs[0].items[3].val
    assert stack.startswith("Traceback (most recent call last):\n  File")
    assert stack.count("\n  File") == 3
    assert stack.endswith("ValueError: deep down\n")
    assert 'raise ValueError("deep down")' in stack


def test_in_another_thread_it_has_a_segment_of_its_own(segments: Segments) -> None:
    def child() -> None:
        with background_span("child"):
            pass

    with background_span("task"):
        thread = threading.Thread(target=contextvars.copy_context().run, args=(child,))
        thread.start()
        thread.join()
    assert outline(segments) == tree("""
        Local task
          Local child CROSS_THREAD""")


def test_spans_of_both_kinds_say_that_they_are_of_this_framework(segments: Segments) -> None:
    with background_span("task"), background_span("attempt"):
        pass
    assert {span.component.name for span in segments[0].spans} == {"FastAPI"}
    assert {span.layer.name for span in segments[0].spans} == {"Unknown"}


def test_the_sampler_is_asked_where_a_trace_begins(segments: Segments, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = SimpleNamespace(takes=True)
    sampler.try_sampling = lambda: sampler.takes
    monkeypatch.setattr(sampling, "sampling_service", sampler)
    outside = carry(current_trace_id, name="outside")
    with background_span("task"):
        inside = carry(current_trace_id, name="inside")
    sampler.takes = False
    assert outside() is None
    assert inside() is not None
    with background_span("alone"):
        assert current_trace_id() is None
    assert names(segments) == ["task", "inside"]
    sampler.takes = True
    assert outside() is not None
    assert names(segments) == ["task", "inside", "outside"]


def test_what_was_taken_along_out_of_no_trace_begins_one_wherever_it_runs(segments: Segments) -> None:
    outside = carry(current_trace_id, name="outside")
    with background_span("task"):
        assert outside() != current_trace_id()
    assert outline(segments) == "Local outside\nLocal task"


def test_what_was_taken_along_out_of_untraced_work_stays_so(segments: Segments) -> None:
    with untraced():
        func = carry(current_trace_id)
    assert func() is None
    assert segments == []


async def test_a_coroutine_functions_span_is_open_until_it_ends(segments: Segments) -> None:
    async def work(number: int, *, key: str) -> Any:
        await asyncio.sleep(0)
        with get_context().new_local_span("below"):
            return number, key, current_trace_id()

    with background_span("task"):
        expected = current_trace_id()
        carried = carry(work)
    assert carried.__name__ == "work"
    assert await carried(1, key="k") == (1, "k", expected)
    assert outline(segments) == tree("""
        Local task
          Local work CROSS_THREAD
            Local below""")


def double(number: int, *, times: int = 1) -> tuple[int, str | None]:
    """Stand for what runs in another process."""
    return 2 * number * times, current_trace_id()


def test_a_name_that_is_no_text_is_shown_as_one(segments: Segments) -> None:
    with background_span(None), background_span(5), background_span(["x"]):  # type: ignore[arg-type]
        pass
    assert outline(segments) == "Local None\n  Local 5\n    Local ['x']"


def test_a_plain_function_keeps_its_name_arguments_and_result(segments: Segments) -> None:
    carried = carry(double)
    assert (carried.__name__, carried.__doc__) == ("double", double.__doc__)
    assert carried(1, times=3)[0] == 6
    assert names(segments) == ["double"]
    assert carry(double, name="other")(1)[0] == 2
    assert names(segments) == ["double", "other"]


def test_a_place_can_be_pickled(segments: Segments) -> None:
    with background_span("task"):
        expected = current_trace_id()
        written = pickle.dumps(carry(double, name="there"))
    assert pickle.loads(written)(2, times=2) == (8, expected)
    (ref,) = find(segments, "there").refs
    assert (ref.ref_type, ref.trace_id, ref.span_id, ref.endpoint) == ("CrossProcess", expected, 0, "task")
    assert ref.segment_id == str(segments[0].segment_id)
    assert (ref.service, ref.service_instance) == (config.agent_name, config.agent_instance_name)
    again = pickle.loads(pickle.dumps(pickle.loads(written)))
    assert again(2) == (4, expected)


def test_a_caller_that_is_pickled_takes_its_correlation_along(segments: Segments) -> None:
    with background_span("task"):
        get_context().put_correlation("user", "ann")
        written = pickle.dumps(carry(correlated))
    assert pickle.loads(written)() == "ann"


def correlated() -> str | None:
    """Ask for what the caller sent along."""
    found: str | None = get_context().get_correlation("user")
    return found


@pytest.mark.parametrize("inside", [True, False])
def test_no_place_can_be_pickled_too(segments: Segments, inside: bool) -> None:
    with untraced() if inside else nullcontext():
        written = pickle.dumps(carry(double))
    number, trace_id = pickle.loads(written)(2)
    assert (number, trace_id is None) == (4, inside)
    assert len(segments) == (0 if inside else 1)


def test_a_running_task_keeps_the_place_of_its_request_and_not_a_list() -> None:
    place, span = Origin(Context("/"), 0, "/"), noop_span()
    assert keep([place]) is place
    for spans in ([span], [place, span], [span, place]):
        assert keep(spans) is spans
    assert keep([]) is None


def test_inside_a_span_that_the_agent_made_before_the_library_was_started(segments: Segments) -> None:
    context = SpanContext()  # the agent's own class
    context.put_correlation("user", "ann")
    with context.new_entry_span("celery/resize"):
        with context.new_local_span("below") as below, background_span("step"):
            assert current_trace_id() == str(context.segment.related_traces[0])
            assert get_context().get_correlation("user") == "ann"
        step = find(segments, "step")
    (ref,) = step.refs
    assert (ref.ref_type, ref.span_id, ref.endpoint) == ("CrossThread", below.sid, "below")
    assert (ref.trace_id, ref.segment_id) == (str(context.segment.related_traces[0]), str(context.segment.segment_id))


def test_a_span_says_whether_its_segment_ended_with_it(segments: Segments) -> None:
    outer = get_context().new_local_span("outer")
    outer.start()
    inner = get_context().new_local_span("inner")
    inner.start()
    assert inner.stop() is False
    assert outer.stop() is True


@pytest.mark.parametrize("kind", ["entry", "local"])
def test_log_lines_of_a_plugins_segment_are_filed_under_its_first_span(segments: Segments, kind: str) -> None:
    context = get_context()
    with context.new_local_span("first"):
        assert context.primary_endpoint.get_name() == "first"
        below = context.new_entry_span("second") if kind == "entry" else context.new_local_span("second")
        with below:
            assert below.context.primary_endpoint.get_name() == "first"
    with get_context().new_entry_span("alone"):
        assert get_context().primary_endpoint.get_name() == "alone"


def test_a_context_that_somebody_kept_leaves_nothing_within_untraced_work(segments: Segments) -> None:
    with background_span("task"):
        kept = get_context()
        with untraced(), kept.new_exit_span("/x", "peer:80") as span, kept.new_local_span("below"):
            assert not span.inject().is_valid
    assert names(segments) == ["task"]


def test_what_goes_on_from_a_place_names_its_endpoint(segments: Segments) -> None:
    with background_span("task"):
        made, kept = get_context().new_exit_span("made", "peer:80"), get_context()
    with made:
        assert made.context.primary_endpoint.get_name() == "made"
    with kept.new_local_span("late") as late:
        assert late.context.primary_endpoint.get_name() == "late"
    assert [find(segments, name).refs[0].endpoint for name in ("made", "late")] == ["task", "task"]


class Mailer:
    def send(self) -> None: ...

    def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("func", "name"),
    [
        (span_name, "span_name"),
        (Mailer().send, "Mailer.send"),
        (Mailer(), "Mailer"),
        (functools.partial(functools.partial(Mailer().send)), "Mailer.send"),
        (lambda: None, "<lambda>"),
    ],
)
def test_a_span_is_named_after_its_function(func: Any, name: str) -> None:
    assert span_name(func) == name


def test_a_clock_that_is_put_back_makes_no_span_end_before_it_began(
    segments: Segments, monkeypatch: pytest.MonkeyPatch
) -> None:
    with background_span("task"), get_context().new_exit_span("call", "peer:80"):
        monkeypatch.setattr(time, "time", lambda: 1_000.0)
    assert [span.end_time >= span.start_time > 10**12 for span in segments[0].spans] == [True, True]


async def test_a_span_that_is_handed_over_goes_on_in_another_asyncio_task(segments: Segments) -> None:
    async def go_on(span: background_span) -> None:
        with span:
            span.tag("attempts", 2)
            with background_span("attempt 2"):
                await asyncio.sleep(0.03)
            message = "for good"
            raise OSError(message)

    with background_span("request") as request:
        with background_span("task") as span:
            with background_span("attempt 1"):
                pass
            heir = span.hand_over()
            with background_span("after it"):  # this code is the request's again
                pass
        continued = asyncio.create_task(go_on(heir), context=contextvars.Context())
        request.tag("still", "open")
    with pytest.raises(OSError, match="for good"):
        await continued
    assert outline(segments) == tree("""
        Local request
          Local after it
          Local task failed
            Local attempt 1
            Local attempt 2
    """)
    task, last = find(segments, "task"), find(segments, "attempt 2")
    assert (task.error_occurred, tags(task)) == (True, {"attempts": "2"})
    assert task.end_time >= last.end_time >= last.start_time + 29
    assert tags(find(segments, "request")) == {"still": "open"}


async def test_a_span_that_records_nothing_is_handed_over_too(segments: Segments) -> None:
    async def go_on(span: background_span) -> None:
        with span, background_span("within"):
            await asyncio.sleep(0)

    with untraced() as span:
        heir = span.hand_over()
    await asyncio.create_task(go_on(heir), context=contextvars.Context())
    assert segments == []
