"""The command line: `python -m oap_embedded fetch|run|lock`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from oap_embedded._archive import make
from oap_embedded._errors import OapEmbeddedError
from oap_embedded._fetch import cache_directory, fetch
from oap_embedded._lock import write_lock
from oap_embedded._run import CONSOLE_URL, Options, run


def main() -> int:
    """Do what the command line says; 1, with one sentence, when that can't be done."""
    arguments = _parser().parse_args()
    try:
        if arguments.command == "fetch":
            print(f"OAP is complete: {len(fetch())} jars in {cache_directory()}")  # noqa: T201
        elif arguments.command == "archive":
            os.nice(19)
            made = make(fetch(), arguments.data.resolve())
            print(f"class-data archive: {made or 'not made now'}")  # noqa: T201
        elif arguments.command == "lock":
            count = write_lock(Path(__file__).with_name("jars.lock"))
            print(f"locked {count} jars")  # noqa: T201
        else:
            options = vars(arguments)
            del options["command"]
            run(Options(**options))
    except (OapEmbeddedError, OSError) as error:
        print(f"oap: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130  # as a shell says it; what was fetched so far is kept
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="oap-embedded", description="The real SkyWalking OAP without Java or Docker.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fetch", help="fetch OAP into the cache and check it")
    commands.add_parser("lock", help="write a new jars.lock (for developers; needs Maven)")
    archive = commands.add_parser("archive", help="make the archive with which the next start of OAP is faster")
    archive.add_argument("--data", type=Path, required=True, help="folder of an OAP that has started without one")
    start = commands.add_parser("run", help="become OAP")
    start.add_argument("--data", type=Path, required=True, help="folder of its storage and configuration")
    start.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    start.add_argument("--grpc-port", type=_port, default=11800, help="for agents (default %(default)s)")
    start.add_argument("--http-port", type=_port, default=12800, help="for queries (default %(default)s)")
    start.add_argument("--overlay", type=Path, help="folder whose files replace those of the configuration")
    start.add_argument("--dashboards", type=Path, help="folder of a release's ui-initialized-templates")
    start.add_argument("--console-url", default=CONSOLE_URL, help="what the dashboards link to (default %(default)s)")
    start.add_argument("--heap", default="512m", help="Java's largest heap (default %(default)s)")
    return parser


def _port(word: str) -> int:
    """Read a port's number; argparse names the option when it is none."""
    port = int(word)
    if not 0 < port <= 65535:  # noqa: PLR2004  # TCP's own limit
        raise argparse.ArgumentTypeError(f"{word} is not a port, which is 1 to 65535")
    return port


if __name__ == "__main__":
    sys.exit(main())
