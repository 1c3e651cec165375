#!/usr/bin/env bash
# `ringlift upload` with every method.
set -euo pipefail
source "$(dirname "$0")/cases.sh"

main() {
    local mode reader token
    try single "$LARGE" upload "$LARGE" --mode single
    for mode in bytes parts auto; do
        try "$mode" "$LARGE" upload "$LARGE" --mode "$mode" --chunk-size 5MiB
    done
    for reader in uring direct mmap pread; do
        try "$reader" "$LARGE" upload "$LARGE" --reader "$reader" --chunk-size 6MiB
    done
    try small "$SMALL" upload "$SMALL"
    try container "$LARGE" upload "$LARGE" --video-id "$(new_video)" --chunk-size 5MiB
    try stdin "$LARGE" upload - --chunk-size 5MiB <"$LARGE"
    try small-stdin "$SMALL" upload - <"$SMALL"
    token=$(ringlift token create | field token.token)
    try delegated-single "$LARGE" delegated "$token" "$LARGE" --mode single
    for mode in bytes parts; do
        try "delegated-$mode" "$LARGE" delegated "$token" "$LARGE" --mode "$mode" --chunk-size 5MiB
    done
    try delegated-stdin "$LARGE" delegated "$token" - --chunk-size 5MiB <"$LARGE"
    try delegated-container "$LARGE" delegated "$token" "$LARGE" --video-id "$(new_video)" --chunk-size 5MiB
}

upload() { # FILE OPTION...
    ringlift upload "$@" | field video_id
}

delegated() { # TOKEN FILE OPTION...
    env -u APIVIDEO_API_KEY "$RINGLIFT" upload "${@:2}" --upload-token "$1" "${common[@]}" | field video_id
}

new_video() {
    curl --silent --show-error --fail ${CA_CERT:+--cacert "$CA_CERT"} --user "$APIVIDEO_API_KEY:" \
        --json '{"title": "a container"}' "$ENDPOINT_URL/videos" | field videoId
}

ringlift() {
    "$RINGLIFT" "$@" "${common[@]}"
}

common=(--json --endpoint-url "$ENDPOINT_URL" ${CA_CERT:+--ca-cert "$CA_CERT"})

main
