"""From a clone to the first trace: how long it takes, and what each part takes of memory and disk.

`.venv/bin/python bench/start.py` measures `make up RUNTIME=native` with warm caches, `--cold 5` also with empty ones: a
fresh clone, nothing downloaded, nothing compiled. `--runtime compose` measures containers, with images that are built
already. It clones this repository's HEAD into a folder of its own and leaves nothing behind.

Before each start it times a loop of ten million additions in Python: rented machines are not equally fast at all hours.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Final

import httpx

ROOT: Final = Path(__file__).parent.parent
PORTS: Final = (
    "SERVICE_PORT", "CONSOLE_PORT", "OAP_GRPC_PORT", "OAP_HTTP_PORT", "LOCUST_PORT", "LOCUST_MASTER_PORT", "REDIS_PORT",
    "CONSUMER_PORT", "WORKER_PORT", "UI_PORT", "BANYANDB_HTTP_PORT", "RABBITMQ_UI_PORT",
)  # fmt: skip
TRACE_SECONDS: Final = 60.0
ARCHIVE_SECONDS: Final = 180.0


def main() -> int:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="starts of each kind (default %(default)s)")
    parser.add_argument("--cold", type=int, default=0, help="starts with empty caches, each of which downloads 70 MB")
    parser.add_argument("--runtime", choices=("native", "compose"), default="native")
    parser.add_argument("--first-port", type=int, default=28700)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="start-"))
    try:
        clone = folder / "clone"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)  # noqa: S607  # whichever the user has
        environment = _environment(arguments.first_port, arguments.runtime)
        print("| start: median, each | `make up` returns | first trace in OAP | the loop |\n|---|---|---|---|")
        if arguments.runtime == "compose":
            _make(clone, environment, "doctor")  # what is no part of a start: our own tools
            _tell("no data yet", [_start(clone, environment, keep=False) for _ in range(arguments.rounds)])
            _tell("with data", [_start(clone, environment) for _ in range(arguments.rounds)])
            _make(clone, environment, "clean")
            return 0
        if arguments.cold:
            _tell("cold: nothing downloaded", [_cold(clone, folder, environment) for _ in range(arguments.cold)])
        _tell("first in a clone, caches filled", [_start(clone, environment, keep=False, archive=True)])
        _tell("warm", [_start(clone, environment) for _ in range(arguments.rounds)])
        _show_parts(clone, environment)
        return 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _environment(first_port: int, runtime: str) -> dict[str, str]:
    ports = {name: str(first_port + place) for place, name in enumerate(PORTS)}
    images = {"IMAGES": "local"} if runtime == "compose" else {}
    return {**os.environ, **ports, **images, "RUNTIME": runtime}


def _cold(clone: Path, folder: Path, environment: dict[str, str]) -> tuple[float, float, float]:
    """Start with empty caches, which are deleted afterwards."""
    caches = {name: str(folder / name.lower()) for name in ("OAP_EMBEDDED_CACHE", "UV_CACHE_DIR")}
    try:
        return _start(clone, {**environment, **caches}, keep=False)
    finally:
        for made in (*caches.values(), str(clone / ".venv")):
            shutil.rmtree(made, ignore_errors=True)


def _start(
    clone: Path, environment: dict[str, str], *, keep: bool = True, archive: bool = False
) -> tuple[float, float, float]:
    """Start and end the stack once.

    Returns:
        After how many s `make up` returned, after how many a trace was in OAP, and the seconds of the loop before.

    Args:
        clone: where.
        environment: with the ports.
        keep: what it stored, so that the next start finds it as a user's does.
        archive: wait until the class-data archive is made, so that the next start has it.
    """
    loop = _loop_seconds()
    began = time.monotonic()
    try:
        _make(clone, environment, "up")
        up = time.monotonic() - began
        answer = httpx.get(f"http://127.0.0.1:{environment['SERVICE_PORT']}/test?duration=0", trust_env=False)
        _wait_for_trace(environment["OAP_HTTP_PORT"], answer.raise_for_status().headers["X-Trace-Id"])
        traced = time.monotonic() - began
        if archive:
            _wait_for_archive(clone)
    finally:
        _make(clone, environment, "down" if keep else "clean")
    return up, traced, loop


def _loop_seconds() -> float:
    began, total = time.perf_counter(), 0
    for number in range(10_000_000):
        total += number
    return time.perf_counter() - began


def _wait_for_trace(port: str, trace_id: str) -> None:
    query = "query ($id: ID!) { trace: queryTrace(traceId: $id) { spans { spanId } } }"
    deadline = time.monotonic() + TRACE_SECONDS
    while time.monotonic() < deadline:
        body = {"query": query, "variables": {"id": trace_id}}
        found = httpx.post(f"http://127.0.0.1:{port}/graphql", json=body, trust_env=False).json()
        if found["data"]["trace"]["spans"]:
            return
        time.sleep(0.05)
    raise TimeoutError(trace_id)


def _wait_for_archive(clone: Path) -> None:
    log = clone / ".run" / "log" / "class-data.log"
    deadline = time.monotonic() + ARCHIVE_SECONDS
    while time.monotonic() < deadline and log.exists() and not log.read_text():
        time.sleep(0.5)


def _show_parts(clone: Path, environment: dict[str, str]) -> None:
    """Print what each part takes a minute after its start."""
    try:
        _make(clone, environment, "up")
        time.sleep(60)
        found = json.loads(_make(clone, environment, "status", "JSON=1"))
        disks = {".venv": clone / ".venv", "storage, logs": clone / ".run"}
        print("\n| part | memory |\n|---|---|")
        for part in found["parts"]:
            if part["memory_mb"]:
                print(f"| {part['part']} | {part['memory_mb']} MB |")
        print(f"| all | {found['memory_mb']} MB |\n\n| on disk | |\n|---|---|")
        command = [".venv/bin/python", "-c", "from oap_embedded import cache_directory as d; print(d())"]
        cache = subprocess.run(command, cwd=clone, env=environment, check=True, capture_output=True, text=True).stdout
        disks["OAP's jars, and their class-data archives"] = Path(cache.strip())
        for name, folder in disks.items():
            print(f"| {name} | {_megabytes(folder)} MB |")
    finally:
        _make(clone, environment, "down")


def _megabytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) // 10**6


def _make(clone: Path, environment: dict[str, str], *words: str) -> str:
    command = ["make", "--silent", *words]
    done = subprocess.run(command, cwd=clone, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"make {' '.join(words)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def _tell(title: str, seconds: list[tuple[float, float, float]]) -> None:
    up, traced, loop = (median(column) for column in zip(*seconds, strict=True))
    each = "" if len(seconds) == 1 else ": " + ", ".join(f"{one[0]:.1f}" for one in seconds)
    print(f"| {title} | {up:.1f} s{each} | {traced:.1f} s | {loop:.2f} s |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
