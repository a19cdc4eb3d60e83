"""Packs the agent's protocol package, which its wheel lacks, into our sdist and wheel.

The wheel of apache-skywalking 1.3.0 was published without `skywalking.protocol`; its source distribution has it. So a
build from the repository fetches that one with pip, compares its hash, and takes the package from it, unchanged. Our
sdist holds it too: a build from there fetches nothing. `skywalking_background._protocol` is what uses it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VERSION = "1.3.0"
SHA256 = "581823535b5239c952c5154625ab30718fa86138cf86fdcfeccc3abb1d70292e"
PACKED = "skywalking_background/_packed"
ROOT = PurePosixPath(f"apache_skywalking-{VERSION}")


class ProtocolHook(BuildHookInterface[Any]):
    """Adds `skywalking_background/_packed` to whatever is built, except to an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Fetch the package unless this is an sdist, which has it already."""
        if version == "editable" or Path(self.root, "src", PACKED).exists():
            return
        self.folder = tempfile.TemporaryDirectory()
        packed = Path(self.folder.name)
        with tarfile.open(fetch(packed)) as archive:
            # One by one: Python before 3.11.4 has no `filter` to extract with.
            for member in archive:
                if member.isfile() and is_wanted(PurePosixPath(member.name)):
                    target = packed / member.name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(archive.extractfile(member).read())  # type: ignore[union-attr]  # it is a file
        place = f"src/{PACKED}" if self.target_name == "sdist" else PACKED
        for path in (packed / ROOT).rglob("*"):
            if path.is_file():
                name = path.relative_to(packed / ROOT).as_posix().removeprefix("skywalking/")
                build_data["force_include"][str(path)] = f"{place}/{name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002  # hatch's
        """Remove what was fetched."""
        if hasattr(self, "folder"):
            self.folder.cleanup()


def is_wanted(path: PurePosixPath) -> bool:
    """Tell the protocol package and its notice from the rest of the agent; its licence is word for word ours."""
    inside = path.relative_to(ROOT)
    return str(inside) == "NOTICE" or (inside.parts[:2] == ("skywalking", "protocol") and inside.suffix == ".py")


def fetch(folder: Path) -> Path:
    """Get the agent's source distribution from the package index that pip or uv is set up for."""
    pinned = folder / "agent.txt"
    pinned.write_text(f"apache-skywalking=={VERSION} --hash=sha256:{SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-binary", "apache-skywalking", "--dest", str(folder), "--requirement", str(pinned)]
    environment = dict(os.environ)
    for name in ("UV_INDEX_URL", "UV_DEFAULT_INDEX"):
        if "PIP_INDEX_URL" not in os.environ and name in os.environ:
            environment["PIP_INDEX_URL"] = os.environ[name]
    try:
        subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        message = f"the source distribution of apache-skywalking {VERSION} can't be fetched with pip:\n{error.stderr}"
        raise RuntimeError(message) from error
    return folder / f"{ROOT}.tar.gz"
