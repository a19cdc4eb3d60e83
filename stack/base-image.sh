#!/usr/bin/env bash
# Makes the base image of compose.local.yaml from Debian's packages, for engines that can't pull any: once for each
# machine (kept in ~/.cache) and engine. Needs root and debootstrap.
set -euo pipefail

IMAGE=${1:?usage: base-image.sh IMAGE}
RELEASE=bookworm
PACKAGES=ca-certificates,python3,python3-venv
cache=${XDG_CACHE_HOME:-$HOME/.cache}/background-tracing-stack
system=/etc/ssl/certs/ca-certificates.crt

# A company's own certificates, by whichever variable names them: what is downloaded in builds trusts them too.
own=()
for path in "${SSL_CERT_FILE:-}" "${PIP_CERT:-}" "${REQUESTS_CA_BUNDLE:-}" "${CURL_CA_BUNDLE:-}"; do
    [[ -f $path ]] && ! cmp --quiet "$path" "$system" && own+=("$path")
done
mark=$( ((${#own[@]})) && cat "${own[@]}" | sha256sum | head -c 12 || true)
archive=$cache/base-$RELEASE${mark:+-$mark}.tar

if found=$(docker image inspect --format '{{json .Config.Labels}}' "$IMAGE" 2>/dev/null); then
    [[ -z $mark || $found == *"$mark"* ]] && exit
fi

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
    cp "$system" "$root/etc/ssl/certs/"
    ((${#own[@]})) && cat "${own[@]}" >>"$root$system"
    tar -C "$root" --one-file-system -cf "$archive.part" .
    mv "$archive.part" "$archive"
fi
docker import --change "LABEL certificates=${mark:-none}" --change 'ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt' \
    "$archive" "$IMAGE" >/dev/null
