"""All that touches private parts of the SkyWalking agent (1.3).

The rest of the library knows the agent by these names only. `check()` compares them with what the agent really has: a
newer agent that changed one is told apart by one sentence instead of by wrong traces.
"""

from __future__ import annotations

import functools
import inspect
import logging
import pkgutil
from importlib import metadata
from types import CodeType
from typing import TYPE_CHECKING, Any, Final

from skywalking import Component, Kind, Layer, Log, LogItem, config, plugins, sampling
from skywalking.agent import agent
from skywalking.log import sw_logging
from skywalking.protocol.common.Common_pb2 import KeyStringValuePair
from skywalking.protocol.logging.Logging_pb2 import TextLog
from skywalking.trace import ID
from skywalking.trace import context as _context
from skywalking.trace.carrier import Carrier
from skywalking.trace.context import NoopContext, SpanContext
from skywalking.trace.segment import Segment, SegmentRef
from skywalking.trace.span import EntrySpan, ExitSpan, NoopSpan, Span
from skywalking.trace.tags import Tag

from skywalking_background._faults import note, safe_text
from skywalking_background._limits import LOG_CHARS, TAG_VALUE_CHARS, cut, cut_middle

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import ContextVar

__all__ = [
    "ID",
    "Carrier",
    "Component",
    "EntrySpan",
    "ExitSpan",
    "Kind",
    "Layer",
    "Log",
    "LogItem",
    "NoopContext",
    "NoopSpan",
    "Segment",
    "SegmentRef",
    "Span",
    "SpanContext",
    "Tag",
    "agent",
    "config",
    "inherited_spans",
    "open_spans",
    "plugins",
    "sampled",
    "set_open_spans",
    "use_ids",
]

_USERS_LOGGING: Final = {logging.Logger.callHandlers.__code__, logging.Filterer.filter.__code__}

open_spans: Final[Callable[[], list[Any]]] = _context._spans  # noqa: SLF001
"""The spans that the running code is in, the innermost last; the agent keeps them in a context variable."""

_variable: Final[ContextVar[list[Any]]] = vars(_context)["__spans"]


def inherited_spans() -> list[Any] | None:
    """The same list, without making one where there is none."""
    return _variable.get(None)


set_open_spans: Final[Callable[[list[Any]], object]] = _context._spans_set  # noqa: SLF001


def sampled() -> bool:
    """Ask the agent's sampler about a trace that begins here."""
    service = sampling.sampling_service
    return service is None or bool(service.try_sampling())


def kafka_settings() -> dict[str, Any]:
    """Return what `SW_KAFKA_REPORTER_CONFIG_…` says, as the agent reads it."""
    from skywalking.client.kafka import kafka_configs  # noqa: PLC0415  # there only with its package

    found: dict[str, Any] = kafka_configs
    return found


def use_context_class(made: type[SpanContext]) -> None:
    """Let the agent make contexts of this class for the spans that its plugins open outside of ours."""
    _context.SpanContext = made


def use_safe_values() -> None:
    """Let no value that a plugin or a log line brings raise in the call of the user's that it belongs to.

    Texts that protobuf refuses are replaced and long ones cut; a tag's value that can't be shown is named by its type.
    """
    if Tag.__init__ is _init_tag:
        return
    Tag.__init__ = _init_tag
    sw_logging.TextLog = _safe_text_log
    sw_logging.KeyStringValuePair = _safe_pair
    if (handle := logging.Logger.handle).__module__ == sw_logging.__name__:
        logging.Logger.handle = _contained(handle)  # type: ignore[method-assign]


def _init_tag(self: Tag, val: object) -> None:
    self.val = safe_text(val)


def _safe_text_log(text: str) -> TextLog:
    return TextLog(text=clean(cut_middle(text, LOG_CHARS)))


def _safe_pair(key: str, value: str) -> KeyStringValuePair:
    return KeyStringValuePair(key=clean(key), value=clean(cut(value, TAG_VALUE_CHARS)))


def to_utf8(text: str) -> bytes:
    r"""Write text as protobuf and databases take it: surrogates and NUL become `\udcff` and `\x00`."""
    return text.encode(errors="backslashreplace").replace(b"\0", rb"\x00")


def clean(text: str) -> str:
    """Return the text as it can be read back from that."""
    return to_utf8(text).decode()


def _contained(handle: Callable[[logging.Logger, logging.LogRecord], None]) -> Callable[..., None]:
    """Wrap the agent's copy of a log line: what fails in it is not the business of who logs."""

    @functools.wraps(handle)
    def contained(logger: logging.Logger, record: logging.LogRecord) -> None:
        try:
            handle(logger, record)
        except Exception as error:
            frame = error.__traceback__
            while frame is not None:
                if frame.tb_frame.f_code in _USERS_LOGGING:  # in one of the user's own handlers or filters
                    raise
                frame = frame.tb_next
            note("copying a log line")

    return contained


def use_ids(new_id: Callable[[], str]) -> None:
    """Let the agent, and with it all of its plugins, take its ids from this function."""

    def make(self: ID, raw_id: str | None = None) -> None:
        self.value = raw_id or new_id()

    ID.__init__ = make


_TRACE: Final = "skywalking.trace."
_SETTINGS: Final = """
    RE_HTTP_IGNORE_METHOD RE_IGNORE_PATH agent_asyncio_enhancement agent_authentication agent_cause_exception_depth
    agent_collector_backend_services agent_disable_plugins agent_experimental_fork_support agent_force_tls
    agent_instance_name agent_log_reporter_active agent_log_reporter_max_buffer_size agent_logging_level
    agent_meter_reporter_active agent_meter_reporter_period agent_name agent_profile_active agent_protocol
    agent_pvm_meter_reporter_active agent_trace_reporter_max_buffer_size kafka_bootstrap_servers kafka_topic_log
    kafka_topic_management kafka_topic_meter kafka_topic_segment sample_n_per_3_secs
"""
_RELIED_ON: Final[tuple[tuple[str, str, str], ...]] = (
    # what, with which parameters first, and what its code must use for ours to be asked
    (_TRACE + "context:__spans.get", "", ""),
    (_TRACE + "context:_spans_set", "", ""),
    (_TRACE + "context:_spans", "", "__spans"),
    (_TRACE + "context:get_context", "", "_spans context sampling_service SpanContext NoopContext"),
    ("skywalking.sampling:sampling_service", "", ""),
    ("skywalking.trace:ID.__init__", "self raw_id", "value"),
    ("skywalking.trace:ID.__str__", "self", "value"),
    (__name__ + ":SpanContext.peek", "raise_if_none", "_spans"),
    (__name__ + ":SpanContext.ignore_check", "op carrier", "RE_IGNORE_PATH is_segment_queue_full"),
    (__name__ + ":SpanContext.new_span", "self parent SpanType", ""),
    (__name__ + ":SpanContext.new_local_span", "self op", "ignore_check peek new_span"),
    (__name__ + ":SpanContext.new_entry_span", "self op carrier inherit", "ignore_check peek new_span extract"),
    (__name__ + ":SpanContext.new_exit_span", "self op peer component inherit", "ignore_check peek new_span"),
    (__name__ + ":SpanContext.start", "self span", ""),
    (__name__ + ":SpanContext.stop", "self span", ""),
    (__name__ + ":SpanContext.active_span", "", ""),
    (__name__ + ":SpanContext.capture", "self", "_spans segment segment_id related_traces active_span _correlation"),
    (__name__ + ":SpanContext.continued", "self snapshot", "active_span refs segment relate _correlation"),
    (__name__ + ":SpanContext.get_correlation", "self key", "_correlation"),
    (
        _TRACE + "span:Span.__init__",
        "self context sid pid op peer kind component layer",
        "_depth tags logs refs inherit",
    ),
    (_TRACE + "span:Span.depth", "", ""),
    (_TRACE + "span:Span.start", "self", "_depth start_time context start"),
    (_TRACE + "span:Span.stop", "self", "_depth context stop"),
    (_TRACE + "span:Span.tag", "self tag", "overridable tags key"),
    (_TRACE + "span:Span.iter_tags", "self", "tags"),
    (_TRACE + "span:Span.extract", "self carrier", "context segment relate _correlation refs"),
    (_TRACE + "span:EntrySpan.start", "self", "_max_depth _depth"),
    (_TRACE + "span:ExitSpan.inject", "self", "context segment related_traces segment_id sid _correlation"),
    (_TRACE + "segment:SegmentRef.__init__", "self carrier ref_type", "trace_id segment_id span_id service_instance"),
    (_TRACE + "tags:Tag.__init__", "self val", "val"),
    (_TRACE + "tags:Tag.overridable", "", ""),
    ("skywalking:Log.__init__", "self timestamp items", "timestamp items"),
    ("skywalking.log.sw_logging:TextLog", "text", ""),
    ("skywalking.log.sw_logging:KeyStringValuePair", "key value", ""),
    (
        "skywalking.log.sw_logging:install",
        "",
        "handle TextLog KeyStringValuePair get_context active_span primary_endpoint get_name archive_log",
    ),
    ("skywalking.agent:agent.start", "", ""),
    ("skywalking.agent:agent.start_prefork_master", "", ""),
    ("skywalking.agent:agent.started_pid", "", ""),
    ("skywalking.agent:agent.archive_segment", "", ""),
    ("skywalking.agent:agent.archive_log", "", ""),
    ("skywalking.agent:agent.is_segment_queue_full", "", ""),
    ("skywalking.agent:agent.started", "", "_SkyWalkingAgent__reporting"),
    ("skywalking.agent:agent._finished", "", ""),
    *(
        (f"skywalking.agent:agent._SkyWalkingAgent__{name}", "", "")
        for name in (
            "fini",
            "started",
            "reporting",
            "protocol",
            "init_queues",
            "heartbeat",
            "report_meter",
            "command_dispatch",
            "query_profile_command",
            "send_profile_snapshot",
        )
    ),
    ("skywalking.agent.protocol.grpc:GrpcProtocol._cb", "", ""),
    ("skywalking.plugins:install", "", ""),
    ("skywalking.plugins:pkg_version_check", "plugin", "version_rule"),
    ("skywalking.meter:_meter_service", "", ""),
    ("skywalking.profile:profile_task_execution_service", "", ""),
    ("skywalking.profile:init", "", "profile_task_execution_service"),
    ("skywalking.config:ignore_http_method_check", "method", ""),
    *((f"skywalking.config:{name}", "", "") for name in _SETTINGS.split()),
)
"""What of the agent's own this library calls, replaces, or expects to be called by.

Only modules that are imported anyway: importing `skywalking.sampling.sampling_service` hides the agent's own variable.
"""


def check() -> None:
    """Compare the installed agent with the one that this library was written for.

    Raises:
        RuntimeError: it has changed; one sentence says where.
    """
    for path, parameters, uses in _RELIED_ON:
        if (change := _change(path, parameters.split(), set(uses.split()))) is not None:
            version = metadata.version("apache-skywalking")
            message = (
                f"skywalking-background works with apache-skywalking 1.3, and {version} is installed, "
                f"where {path.rpartition(':')[2]} {change}"
            )
            raise RuntimeError(message)


def _change(path: str, parameters: list[str], uses: set[str]) -> str | None:
    try:
        found = pkgutil.resolve_name(path)
    except (ImportError, AttributeError):
        return "is missing"
    if parameters and not inspect.isclass(found):
        has = list(inspect.signature(found).parameters)
        if has[: len(parameters)] != parameters:
            return f"takes ({', '.join(has)}) instead of ({', '.join(parameters)})"
    code = getattr(inspect.unwrap(found), "__code__", None) if uses else None
    missing = uses - _names_in(code) if code is not None else uses
    return f"does not use {', '.join(sorted(missing))} any more" if missing else None


def _names_in(code: CodeType) -> set[str]:
    """Return the names that a function's code uses, and those of the functions in it."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names_in(constant)
    return names
