from __future__ import annotations

import pytest
from pydantic import ValidationError
from tracing_console import Settings


def test_a_trace_links_to_either_ui() -> None:
    assert Settings(ui_url="http://127.0.0.1:8080/").ui_link("a/b") == "http://127.0.0.1:8080/traces/a%2Fb"
    horizon = Settings(ui_url="http://127.0.0.1:8081", ui_trace_path="/layer/general/trace?traceId={trace_id}")
    assert horizon.ui_link("abc") == "http://127.0.0.1:8081/layer/general/trace?traceId=abc"


def test_names_are_added_to_those_of_the_loopback() -> None:
    assert Settings(allowed_hosts=" Console ,stack.example,").hosts == {
        "127.0.0.1", "localhost", "[::1]", "console", "stack.example",
    }  # fmt: skip


@pytest.mark.parametrize("value", ["127.0.0.1:12800", "javascript:alert(1)", "nothing"])
def test_what_is_no_url_is_refused(value: str) -> None:
    with pytest.raises(ValidationError):
        Settings(oap_url=value)
