"""A part of the native stack that lets a fault happen for the console's page, one at a time: `make crash` in small.

It listens on a Unix socket in the run folder, which no page of a browser reaches and no other user may open, and knows
two orders: to begin one of the variants with one of the faults of the table, and to end what it has begun. What is
killed then are processes that the run itself has started.

- `GET /`: `{"variants", "faults", "run", "running"}`; the run is what `progress.Progress` has written last
- `POST /runs`: `{"variant": "celery", "fault": "kill"}`; 409 while one runs, 422 for what is not in the table
- `DELETE /runs`: ends it
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any, Final

from demo_service.variants import VARIANTS

from stack.crash.fault_table import FAULTS, TITLES, applies

END_SECONDS: Final = 30.0
"""How long a run may take to end its own processes."""
MOST_BYTES: Final = 10_000
"""Of an order."""
TABLE: Final = {
    "variants": [
        {
            "name": one.name,
            "title": one.title,
            "how": one.how,
            "faults": [fault for fault in FAULTS if applies(one, fault)],
            "survives": {"kill": one.survives_kill, "term": one.survives_term, "broker": one.survives_kill},
        }
        for one in VARIANTS
    ],
    "faults": TITLES,
}


class Desk:
    """Takes the orders.

    Args:
        folder: for the run's progress and its log.
    """

    def __init__(self, folder: Path) -> None:
        self.progress = folder / "progress.json"
        self.log = folder / "log"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def state(self) -> dict[str, Any]:
        """Return the table, and how far the run is."""
        running = self._process is not None and self._process.poll() is None
        run: dict[str, Any] | None = None
        with suppress(FileNotFoundError):
            run = json.loads(self.progress.read_text())
        if run is not None and not running and not run["ended"]:
            run["error"] = run["error"] or f"the run has ended before its time; its log is {self.log}"
        return {**TABLE, "running": running, "run": run}

    def begin(self, variant: str, fault: str) -> tuple[int, str]:
        """Begin a run; return an HTTP status, and what is wrong where it is not 202."""
        known = {(one.name, each) for one in VARIANTS for each in FAULTS if applies(one, each)}
        if (variant, fault) not in known:
            return 422, "there is no such variant with such a fault"
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                return 409, "a run is under way: one at a time"
            self.progress.unlink(missing_ok=True)
            words = ["crash", "--variants", variant, "--faults", fault, "--progress", str(self.progress)]
            with self.log.open("wb") as output:
                self._process = subprocess.Popen(  # noqa: S603  # names of the table
                    [sys.executable, "-m", "stack", *words], stdout=output, stderr=output, start_new_session=True
                )
        return 202, ""

    def end(self) -> tuple[int, str]:
        """End the run, with all that it has started."""
        with self._lock:
            process = self._process
            if process is None or process.poll() is not None:
                return 409, "no run is under way"
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        return 202, ""


class Server(ThreadingMixIn, UnixStreamServer):
    """Answers on the socket."""

    daemon_threads = True

    def __init__(self, socket: Path, desk: Desk) -> None:
        self.desk = desk
        socket.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            super().__init__(str(socket), Handler)
        finally:
            os.umask(before)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server

    def do_GET(self) -> None:
        """Tell how it stands."""
        self._answer(200, self.server.desk.state()) if self.path == "/" else self._answer(404, {})

    def do_POST(self) -> None:
        """Begin a run."""
        order = self._order()
        if self.path != "/runs" or order is None:
            self._answer(404 if order is not None else 422, {"detail": "POST /runs with a variant and a fault"})
            return
        status, wrong = self.server.desk.begin(str(order.get("variant")), str(order.get("fault")))
        self._answer(status, {"detail": wrong})

    def do_DELETE(self) -> None:
        """End it."""
        status, wrong = self.server.desk.end() if self.path == "/runs" else (404, "DELETE /runs")
        self._answer(status, {"detail": wrong})

    def _order(self) -> dict[str, Any] | None:
        try:
            size = int(self.headers.get("Content-Length") or 0)
            order = json.loads(self.rfile.read(min(size, MOST_BYTES)))
        except ValueError:
            return None
        return order if isinstance(order, dict) else None

    def _answer(self, status: int, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Keep quiet: the console asks all the time."""


def main() -> int:
    """Serve until SIGTERM; the words are the socket and the folder for what is written."""
    socket, folder = Path(sys.argv[1]), Path(sys.argv[2])
    desk = Desk(folder)
    with Server(socket, desk) as server:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            server.serve_forever()
        except (KeyboardInterrupt, SystemExit):
            pass
        finally:
            desk.end()
            socket.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
