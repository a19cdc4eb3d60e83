"""A Maven repository on this machine."""

from __future__ import annotations

import threading
from functools import partial
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from oap_embedded._network import PROXIES
from repository import Handler, Mirror

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    monkeypatch.setattr("oap_embedded._download.FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("oap_embedded._download.ATTEMPTS", 3)
    for variable in PROXIES:
        monkeypatch.delenv(variable, raising=False)
    it = Mirror()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, it)) as server:
        it.url = f"http://127.0.0.1:{server.server_port}/maven2"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield it
        server.shutdown()
        thread.join()
