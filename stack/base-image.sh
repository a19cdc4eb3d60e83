#!/usr/bin/env bash
# Makes the base image of compose.local.yaml from Debian's packages, for engines that can't pull any: once for each
# machine (kept in ~/.cache) and engine. Needs root and debootstrap.
set -euo pipefail

IMAGE=${1:?usage: base-image.sh IMAGE}
RELEASE=bookworm
PACKAGES=ca-certificates,python3,python3-venv
cache=${XDG_CACHE_HOME:-$HOME/.cache}/background-tracing-stack
archive=$cache/base-$RELEASE.tar

docker image inspect "$IMAGE" >/dev/null 2>&1 && exit

if [[ ! -s $archive ]]; then
    if ((EUID)) || ! command -v debootstrap >/dev/null; then
        echo "base-image: the local images need root and debootstrap to be built: install it, or take RUNTIME=native" >&2
        exit 1
    fi
    echo "base-image: making a Debian $RELEASE with debootstrap (once, under a minute)"
    mkdir -p "$cache"
    root=$(mktemp -d)
    trap 'rm -rf --one-file-system "$root"' EXIT
    if ! debootstrap --variant=minbase --include="$PACKAGES" "$RELEASE" "$root" >"$cache/debootstrap.log" 2>&1; then
        tail -n 5 "$cache/debootstrap.log" >&2
        exit 1
    fi
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* "$root"/usr/share/{doc,locale,man}/*
    # A machine behind a proxy that signs with its own authority trusts it in this file: builds must trust it too.
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
    tar -C "$root" --one-file-system -cf "$archive.part" .
    mv "$archive.part" "$archive"
fi
docker import --change 'ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt' \
    "$archive" "$IMAGE" >/dev/null
