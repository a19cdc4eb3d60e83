"""The images of the compose runtime: pulled, or built here."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Final

from stack import _engine
from stack._engine import EngineError
from stack._progress import tail
from stack._settings import ROOT
from stack._start import TAIL

if TYPE_CHECKING:
    from rich.console import Console

    from stack._project import Project

BASE_IMAGE: Final = "background-tracing-stack/base:bookworm"
"""As compose.local.yaml names it."""


def provide_images(console: Console, project: Project) -> None:
    """Pull what is missing and build what is ours.

    Raises:
        EngineError: that can't be done.
    """
    if project.settings.images == "local":
        with console.status("making the base image (once)"):
            command = [str(ROOT / "stack" / "base-image.sh"), BASE_IMAGE]
            done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603  # our own script
        if done.returncode:
            raise EngineError(f"there is no base image ({_engine.last_line(done.stderr)})", "see to that")
    else:
        code = project.run("pull", "--policy", "missing", "--ignore-buildable", log=None if _shown() else project.log)
        if code:
            reason = "" if _shown() else f" ({_engine.last_line(tail(project.log, TAIL))})"
            advice = "check the network, build them here with `make up IMAGES=local`"
            raise EngineError(f"the images can't be pulled{reason}", advice)
    with console.status("building images; the first time takes a minute"):
        code = project.run("build", log=project.log)
    if code:
        console.print(tail(project.log, TAIL), markup=False)
        raise EngineError(f"an image can't be built (its log is {project.log})", "check the network")


def _shown() -> bool:
    """Whether somebody looks on: a pull's progress is for them."""
    return sys.stdout.isatty()
