#!/bin/sh
# Makes .venv from uv.lock, and gets uv first where it is missing. The Makefile calls it in the repository's root.
# Arguments go to `uv sync`, as in `--group bench`.
set -eu

VERSION=0.13.9
OWN=.run/uv
CERTIFICATES="SSL_CERT_FILE PIP_CERT REQUESTS_CA_BUNDLE CURL_CA_BUNDLE"
PROXIES="HTTPS_PROXY https_proxy HTTP_PROXY http_proxy ALL_PROXY all_proxy NO_PROXY no_proxy"

say() { echo "$*" >&2; }

fits() { # fits UV: it runs (a pyenv shim without a uv behind it does not), and is new enough for this workspace
    case $("$1" --version 2>/dev/null) in
    "" | "uv 0."[0-7].*) return 1 ;;
    esac
}

make_run() {
    mkdir -p .run
    chmod 700 .run
}

get_uv() {
    if ! command -v python3 >/dev/null; then
        say "python3 is missing: install python3 and python3-venv, then try again"
        exit 1
    fi
    say "first run: installing uv $VERSION into $OWN"
    make_run
    rm -rf "$OWN"
    if python3 -m venv "$OWN" >/dev/null 2>&1 && "$OWN/bin/python" -m pip install --quiet "uv==$VERSION"; then return; fi
    rm -rf "$OWN"
    if python3 -m pip install --quiet --target "$OWN" "uv==$VERSION"; then return; fi
    rm -rf "$OWN"
    say "uv is missing and could not be installed: install uv or python3-venv, then try again (a mirror of PyPI is named"
    say "by PIP_INDEX_URL, a proxy by HTTPS_PROXY, a company's certificates by SSL_CERT_FILE)"
    exit 1
}

from_env_file() { # from_env_file NAME: take it from .env where the environment does not have it, as Compose does
    eval "[ -z \"\${$1:-}\" ]" || return 0
    [ -r .env ] || return 0
    # Not as \r in the expression, which is an r to the sed of macOS.
    value=$(tr -d '\r' <.env | sed -n "s/^[[:space:]]*\(export[[:space:]]\{1,\}\)\{0,1\}$1=//p" | tail -n 1)
    value=${value#[\"\']}
    value=${value%[\"\']}
    [ -z "$value" ] || export "$1=$value"
}

# pip, uv and requests each have a variable of their own for a company's certificates. Whichever is set, all get what is
# in it, beside what the system trusts.
trust() {
    found=
    for variable in $CERTIFICATES; do
        eval "path=\${$variable:-}"
        [ -n "$path" ] || continue
        if ! [ -r "$path" ]; then
            say "$variable=$path can't be read: name a file of certificates, or unset it"
            exit 1
        fi
        found=1
    done
    [ -n "$found" ] || return 0
    bundle=$(mktemp)
    trap 'rm -f "$bundle"' EXIT
    for path in "${SSL_CERT_FILE:-}" "${PIP_CERT:-}" "${REQUESTS_CA_BUNDLE:-}" "${CURL_CA_BUNDLE:-}" \
        /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
        if [ -d "$path" ]; then
            cat "$path"/*.pem "$path"/*.crt 2>/dev/null || true
        elif [ -f "$path" ]; then
            cat "$path"
            echo
        fi
    done >"$bundle"
    export SSL_CERT_FILE="$bundle" PIP_CERT="$bundle" REQUESTS_CA_BUNDLE="$bundle"
}

# Without a home folder, or with a read-only one, what uv keeps goes where all else is.
find_cache() {
    [ -z "${UV_CACHE_DIR:-}" ] || return 0
    if cache=$("$uv" cache dir 2>/dev/null) && mkdir -p "$cache" 2>/dev/null && [ -w "$cache" ]; then return; fi
    make_run
    export UV_CACHE_DIR="$PWD/.run/uv-cache" UV_PYTHON_INSTALL_DIR="${UV_PYTHON_INSTALL_DIR:-$PWD/.run/python}"
}

for name in UV_DEFAULT_INDEX PIP_INDEX_URL $PROXIES $CERTIFICATES; do from_env_file "$name"; done
trust

if fits uv; then
    uv=uv
else
    uv=$OWN/bin/uv
    fits "$uv" || get_uv
fi
find_cache

say "first run or new versions: installing the Python packages into .venv"
unset VIRTUAL_ENV UV_PROJECT_ENVIRONMENT
if [ -e .venv ] && ! .venv/bin/python -c '' 2>/dev/null; then rm -rf .venv; fi # half made, or its Python has gone
# The first start should not have to compile thousands of modules, all parts at once.
if ! "$uv" sync --locked --quiet --compile-bytecode "$@"; then
    if "$uv" python find --no-project ">=3.11,<3.13" >/dev/null 2>&1; then
        say "uv could not install the packages and says why above (a mirror is named by UV_DEFAULT_INDEX, a proxy by"
        say "HTTPS_PROXY, a company's certificates by SSL_CERT_FILE, another folder for its cache by UV_CACHE_DIR)"
    else
        say "there is no Python 3.11 or 3.12 here and uv could not fetch one: install python3.11 or python3.12, then try again"
        say "(a mirror of what uv fetches is named by UV_PYTHON_INSTALL_MIRROR, a proxy by HTTPS_PROXY)"
    fi
    exit 1
fi
if ! .venv/bin/python -c 'import stack.runtime, demo_service.app, tracing_console' 2>/dev/null; then
    say "packages in .venv are damaged: installing all of them again"
    "$uv" sync --locked --quiet --compile-bytecode --reinstall "$@"
fi
touch .venv/.synced
