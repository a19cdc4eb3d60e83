#!/bin/sh
# Makes .venv from uv.lock, and gets uv first where it is missing. The Makefile calls it in the repository's root.
# Arguments go to `uv sync`, as in `--group bench`.
set -eu

VERSION=0.13.9
OWN=.run/uv

say() { echo "$*" >&2; }

fits() { # fits UV: it runs (a pyenv shim without a uv behind it does not), and is new enough for this workspace
    case $("$1" --version 2>/dev/null) in
    "" | "uv 0."[0-7].*) return 1 ;;
    esac
}

get_uv() {
    if ! command -v python3 >/dev/null; then
        say "python3 is missing: install python3 and python3-venv, then try again"
        exit 1
    fi
    say "first run: installing uv $VERSION into $OWN"
    mkdir -p .run
    chmod 700 .run
    rm -rf "$OWN"
    if python3 -m venv "$OWN" >/dev/null 2>&1 && "$OWN/bin/pip" install --quiet "uv==$VERSION"; then return; fi
    rm -rf "$OWN"
    if python3 -m pip install --quiet --target "$OWN" "uv==$VERSION"; then return; fi
    rm -rf "$OWN"
    say "uv is missing and could not be installed: install uv or python3-venv, then try again"
    exit 1
}

if fits uv; then
    uv=uv
else
    uv=$OWN/bin/uv
    fits "$uv" || get_uv
fi

say "first run or new versions: installing the Python packages into .venv"
unset VIRTUAL_ENV UV_PROJECT_ENVIRONMENT
if ! "$uv" sync --locked --quiet "$@"; then
    if "$uv" python find --no-project ">=3.11,<3.13" >/dev/null 2>&1; then
        say "uv could not install the packages and says why above (a mirror is named by UV_DEFAULT_INDEX)"
    else
        say "there is no Python 3.11 or 3.12 here and uv could not fetch one: install python3.11 or python3.12, then try again"
    fi
    exit 1
fi
touch .venv/.synced
