"""The seam: all that touches the agent's private parts stands in one module, which notices when they change."""

from __future__ import annotations

import ast
import pkgutil
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import skywalking_background
from skywalking import sampling
from skywalking.trace import context as agents
from skywalking.trace.context import get_context
from skywalking.trace.span import EntrySpan, ExitSpan, NoopSpan, Span
from skywalking_background import _internals
from skywalking_background._internals import check, clean, inherited_spans, open_spans, sampled, set_open_spans
from skywalking_background._segments import Context

RELIED_ON = {path: (parameters.split(), uses.split()) for path, parameters, uses in _internals._RELIED_ON}
FUNCTIONS = [path for path, (parameters, uses) in RELIED_ON.items() if parameters or uses]
USING = [path for path, (_, uses) in RELIED_ON.items() if uses]


def holders(path: str) -> list[Any]:
    """Return the objects that have the last name of a path: an instance, its class, or a base of it."""
    module, _, inside = path.partition(":")
    above, _, name = inside.rpartition(".")
    owner = pkgutil.resolve_name(f"{module}:{above}" if above else module)
    classes = owner.__mro__ if isinstance(owner, type) else (owner, *type(owner).__mro__)
    return [one for one in classes if name in getattr(one, "__dict__", {})]


def sentence(path: str) -> str:
    version = metadata.version("apache-skywalking")
    name = path.rpartition(":")[2]
    return f"skywalking-background works with apache-skywalking 1.3, and {version} is installed, where {name} "


def said() -> str:
    with pytest.raises(RuntimeError) as raised:
        check()
    return str(raised.value)


def test_the_agent_that_is_installed_is_the_one_that_is_known() -> None:
    before = sampling.sampling_service
    check()
    assert sampling.sampling_service is before  # looking must not change anything


@pytest.mark.usefixtures("segments")
def test_it_still_is_when_the_library_has_taken_its_places() -> None:
    assert agents.SpanContext is Context
    check()


@pytest.mark.parametrize("path", RELIED_ON)
def test_one_sentence_says_what_is_missing(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    *_, name = path.replace(":", ".").split(".")
    if path.endswith("__spans.get"):
        monkeypatch.delattr(agents, "__spans")  # what the interpreter has made can't be taken apart
    else:
        monkeypatch.delattr(holders(path)[0], name)
    if name in {"__init__", "__str__", "start", "inject"}:  # a base has one too, but not that one
        assert said().startswith(sentence(path))
    else:
        assert said() == sentence(path) + "is missing"


@pytest.mark.parametrize("path", [path for path in FUNCTIONS if RELIED_ON[path][0]])
def test_one_sentence_says_which_parameters_have_changed(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(other: object, another: object = None) -> None: ...

    *_, name = path.replace(":", ".").split(".")
    monkeypatch.setattr(holders(path)[0], name, staticmethod(changed))
    wanted = ", ".join(RELIED_ON[path][0])
    assert said() == sentence(path) + f"takes (other, another) instead of ({wanted})"


@pytest.mark.parametrize("path", USING)
def test_one_sentence_says_what_is_no_longer_used(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters, uses = RELIED_ON[path]
    names: dict[str, Any] = {}
    exec(f"def idle({', '.join(parameters)}): ...", names)
    *_, name = path.replace(":", ".").split(".")
    monkeypatch.setattr(holders(path)[0], name, staticmethod(names["idle"]))
    assert said() == sentence(path) + f"does not use {', '.join(sorted(uses))} any more"


def test_a_name_that_is_used_in_a_function_within_is_used() -> None:
    def outer() -> Any:
        def inner() -> Any:
            return metadata.version

        return inner

    assert {"metadata", "version"} <= _internals._names_in(outer.__code__)


# What the names mean.


def test_the_agents_functions_put_their_spans_where_ours_are(segments: list[Any]) -> None:
    set_open_spans([])
    with get_context().new_local_span("one") as span:
        assert open_spans() == [span]
        assert inherited_spans() is open_spans()
    assert open_spans() == []
    assert isinstance(span.context, Context)


def test_asking_for_what_is_inherited_makes_nothing() -> None:
    import contextvars

    empty = contextvars.Context()
    assert empty.run(inherited_spans) is None
    assert list(empty) == []


@pytest.mark.parametrize(("makes", "kind"), [
    (lambda context: context.new_local_span("x"), Span),
    (lambda context: context.new_entry_span("x"), EntrySpan),
    (lambda context: context.new_exit_span("x", "peer:80"), ExitSpan),
])  # fmt: skip
def test_plugins_get_spans_of_the_agents_own_classes(segments: list[Any], makes: Any, kind: type) -> None:
    span = makes(get_context())
    assert type(span) is kind
    assert not isinstance(span, NoopSpan)


@pytest.mark.parametrize(("service", "takes"), [
    (None, True), (True, True), (False, False),
])  # fmt: skip
def test_the_agents_sampler_is_asked(monkeypatch: pytest.MonkeyPatch, service: Any, takes: bool) -> None:
    sampler = None if service is None else SimpleNamespace(try_sampling=lambda: service)
    monkeypatch.setattr(sampling, "sampling_service", sampler)
    assert sampled() is takes


@pytest.mark.parametrize(("text", "cleaned"), [
    ("plain \u00e9", "plain \u00e9"), ("\udcff", r"\udcff"), ("a\0b", r"a\x00b"), ("", ""),
])  # fmt: skip
def test_text_is_cleaned_of_what_protobuf_refuses(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


# Who may import the agent.

SEAM = "_internals"
OWN_WAY = {"_doctor.py", "_protocol.py", "__main__.py"}
"""They look at an agent that may be missing or broken."""

MODULES = sorted(Path(skywalking_background.__file__).parent.rglob("*.py"))


def imports(source: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return {name for name in found if name == "skywalking" or name.startswith("skywalking.")}


def test_the_scan_sees_every_form_of_import() -> None:
    assert imports("import skywalking") == {"skywalking"}
    assert imports("def f():\n    import skywalking.agent as a") == {"skywalking.agent"}
    assert imports("if TYPE_CHECKING:\n    from skywalking.trace import ID") == {"skywalking.trace"}
    assert imports("import skywalking_background\nfrom skywalking_background import x\nfrom . import y") == set()


OTHERS = [one for one in MODULES if SEAM not in one.parts and one.name not in OWN_WAY]


@pytest.mark.parametrize("module", OTHERS, ids=lambda one: one.name)
def test_no_other_module_knows_the_agents_insides(module: Path) -> None:
    # The messages of its protocol are public, and those of OAP.
    assert {name for name in imports(module.read_text()) if not name.startswith("skywalking.protocol")} == set()


# What the others use of what the seam hands them.

PARTS = {"agent": "skywalking.agent:agent.", **{
    name: f"skywalking.{name}:" for name in ("config", "meter", "plugins", "profile", "sampling")
}}  # fmt: skip
STAND_INS = {"_light_spans.py": {"_depth", "_max_depth"}, "_segments.py": {"_correlation", "_depth", "_nspans"}}
"""Our spans and contexts stand where the agent looks for its own, under its names: these are in the contract."""


def used(source: str) -> set[str]:
    """Return what a module uses of the agent's parts that it has imported, as the contract names it."""
    tree = ast.parse(source)
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names = {alias.name for node in froms for alias in node.names if (node.module or "").startswith("skywalking")}
    return {
        PARTS[node.value.id] + node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names & set(PARTS)
        if not node.attr.startswith("__")
    }


def own_names(package: Any) -> set[str]:
    """Return the private attributes that the classes of the agent's package set or define."""
    sources = [path.read_text() for path in Path(package.__file__).parent.rglob("*.py")]
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    return {name for name in attributes if name.startswith("_") and not name.startswith("__")}


def test_that_scan_sees_what_is_used() -> None:
    source = "from skywalking_background._internals import agent, config\nconfig.a\nagent._b()\nprofile.c\n{}.d"
    assert used(source) == {"skywalking.config:a", "skywalking.agent:agent._b"}
    assert {"_depth", "_max_depth", "_correlation", "_nspans", "_sid"} <= own_names(agents)


@pytest.mark.parametrize("module", MODULES, ids=lambda one: one.name)
def test_what_is_used_of_the_agent_is_in_the_contract(module: Path) -> None:
    assert used(module.read_text()) - set(RELIED_ON) == set()


@pytest.mark.parametrize("module", OTHERS, ids=lambda one: one.name)
def test_the_agents_private_names_are_its_stand_ins_only(module: Path) -> None:
    private = own_names(agents)
    nodes = ast.walk(ast.parse(module.read_text()))
    found = {node.attr for node in nodes if isinstance(node, ast.Attribute)} & private
    assert found <= STAND_INS.get(module.name, set())
