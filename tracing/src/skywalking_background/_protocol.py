"""Where `skywalking.protocol` comes from when the agent lacks it.

The wheel of apache-skywalking 1.3.0 was published without that package; its source distribution has it. Our own wheel
holds it in `_packed` (hatch_build.py puts it there). It stands last on the agent's path: what the agent has is taken.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Final

PACKED: Final = Path(__file__).with_name("_packed")
MEND: Final = (
    "reinstall the agent from its source: `pip install --force-reinstall --no-deps --no-binary apache-skywalking "
    "'apache-skywalking>=1.3,<1.4'`, or with uv "
    "`uv pip install --reinstall-package apache-skywalking --no-binary apache-skywalking 'apache-skywalking>=1.3,<1.4'`"
)
UPGRADE: Final = "`pip install --upgrade grpcio protobuf`, or with uv `uv pip install --upgrade grpcio protobuf`"


def add_protocol() -> None:
    """Make `skywalking.protocol` importable.

    Raises:
        ImportError: neither the agent nor this installation has it, or its generated code fits no protobuf and gRPC
            that are installed.
    """
    skywalking = importlib.import_module("skywalking")
    if str(PACKED) not in skywalking.__path__:
        skywalking.__path__.append(str(PACKED))
    try:
        importlib.import_module("skywalking.protocol.language_agent.Tracing_pb2_grpc")
    except ModuleNotFoundError as error:
        message = f"apache-skywalking is installed without its package `{error.name}`: {MEND}"
        raise ImportError(message) from error
    except Exception as error:
        message = f"the agent's protocol package does not fit what is installed beside it: {UPGRADE} ({error})"
        raise ImportError(message) from error


def _is_doctor() -> bool:
    """Tell `python -m skywalking_background doctor`: it imports the package before it can look at anything."""
    return "doctor" in sys.argv and "-m" in sys.orig_argv and "skywalking_background" in sys.orig_argv


try:
    add_protocol()
except ImportError as error:
    if not _is_doctor():
        raise
    sys.stdout.write(f"FAILED  agent    {error}\n")
    sys.exit(1)
