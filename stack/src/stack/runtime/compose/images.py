"""The images of the compose runtime: pulled, or built here."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Final

from stack.runtime.engine import EngineError, last_line
from stack.settings import ROOT
from stack.terminal import last_lines

if TYPE_CHECKING:
    from rich.console import Console

    from stack.runtime.compose.project import Project

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
            raise EngineError(f"the base image can't be built ({last_line(done.stderr)})", "fix that")
    else:
        code = project.run("pull", "--policy", "missing", "--ignore-buildable", log=None if _shown() else project.log)
        if code:
            reason = "" if _shown() else f" ({last_line(last_lines(project.log))})"
            advice = "check the network, build them here with `make up IMAGES=local`"
            raise EngineError(f"the images can't be pulled{reason}", advice)
    with console.status("building images; the first time takes a minute"):
        code = project.run("build", log=project.log)
    if code:
        console.print(last_lines(project.log), markup=False)
        raise EngineError(f"an image can't be built (its log is {project.log})", "check the network")


def _shown() -> bool:
    """Whether the progress of a pull is shown: only on a terminal."""
    return sys.stdout.isatty()
