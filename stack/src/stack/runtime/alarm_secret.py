"""What OAP says to the service when it sends alarms: made once, and kept where only its owner can read it."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def alarm_secret(run_dir: Path) -> str:
    """Return the secret of the stack in a run folder; empty where there is no such folder yet."""
    path = run_dir / "alarm-secret"
    try:
        path.touch(mode=0o600, exist_ok=False)
        path.write_text(secrets.token_urlsafe(24))
    except FileExistsError:
        pass
    except OSError:
        return ""
    return path.read_text()
