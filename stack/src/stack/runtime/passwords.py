"""Random passwords: made once and kept in the run folder, where only its owner can read them."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Final

from stack.runtime.run_dir import prepare
from stack.settings import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from stack.settings import Settings

HORIZON_USER: Final = "admin"
REDIS_PASSWORD: Final = "REDIS_PASSWORD"  # noqa: S105  # a name
RABBITMQ_PASSWORD: Final = "RABBITMQ_PASSWORD"  # noqa: S105  # a name


def file_of(settings: Settings) -> Path:
    """Where they are kept."""
    return settings.run_dir / "secrets.json"


def load(settings: Settings) -> dict[str, str]:
    """Return the passwords that were made; none before the first `make_missing`."""
    try:
        found: dict[str, str] = json.loads(file_of(settings).read_text())
    except FileNotFoundError:
        return {}
    return found


def make_missing(settings: Settings) -> list[str]:
    """Make the passwords that these settings need and that neither exist nor are set; return their names.

    Raises:
        UsageError: the package that hashes the password of Horizon UI is not installed.
    """
    found = load(settings)
    made = []
    if settings.storage == "postgresql" and not settings.postgres_password and "POSTGRES_PASSWORD" not in found:
        found["POSTGRES_PASSWORD"] = secrets.token_urlsafe(24)
        made.append("POSTGRES_PASSWORD")
    if settings.ui == "horizon" and not settings.horizon_auth_local_users and "HORIZON_PASSWORD" not in found:
        password = secrets.token_urlsafe(12)
        user = {"username": HORIZON_USER, "passwordHash": _hashed(password), "roles": ["admin"]}
        found |= {"HORIZON_PASSWORD": password, "HORIZON_AUTH_LOCAL_USERS": json.dumps([user])}
        made.append("HORIZON_AUTH_LOCAL_USERS")
    if settings.wants_broker and not settings.given_broker_url:
        name = {"native": REDIS_PASSWORD, "compose": RABBITMQ_PASSWORD}.get(settings.runtime)
        if name and name not in found:
            found[name] = secrets.token_urlsafe(24)
            made.append(name)
    if made:
        prepare(settings.run_dir)
        path = file_of(settings)
        path.touch(mode=0o600)
        path.chmod(0o600)
        path.write_text(json.dumps(found))
    return made


def _hashed(password: str) -> str:
    try:
        from argon2 import PasswordHasher  # noqa: PLC0415  # an extra
    except ImportError as error:
        message = "UI=horizon needs the extra `horizon`: pip install argon2-cffi"
        raise UsageError(message) from error
    return PasswordHasher().hash(password)
