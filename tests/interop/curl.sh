#!/usr/bin/env bash
# curl, as in the upload guide.
set -euo pipefail
source "$(dirname "$0")/cases.sh"

main() {
    bearer=$(anonymous /auth/api-key "${json[@]}" --data "{\"apiKey\": \"$APIVIDEO_API_KEY\"}" | field access_token)
    try regular "$SMALL" regular
    try bytes "$LARGE" bytes
    try parts "$LARGE" parts "$(seq "$count")"
    try parts-out-of-order "$LARGE" parts "$(seq "$count" -1 1)"
    try parts-at-once "$LARGE" parts_at_once
    try parts-of-unknown-number "$LARGE" parts_of_unknown_number
    try delegated "$SMALL" delegated
    try delegated-parts "$LARGE" delegated_parts
    try delegated-parts-into-a-container "$LARGE" delegated_parts_into_a_container
}

regular() {
    local id
    id=$(new_video)
    chunk "$id" "$SMALL"
    echo "$id"
}

bytes() {
    local id part first=0 last total
    id=$(new_video)
    total=$(stat --format %s "$LARGE")
    for part in "$PARTS"/part.*; do
        last=$((first + $(stat --format %s "$part") - 1))
        chunk "$id" "$part" --header "Content-Range: bytes $first-$last/$total"
        first=$((last + 1))
    done
    echo "$id"
}

parts() { # NUMBERS
    local id n
    id=$(new_video)
    for n in $1; do
        chunk "$id" "$(part "$n")" --header "Content-Range: part $n/$count"
    done
    echo "$id"
}

parts_at_once() {
    local id n job jobs=()
    id=$(new_video)
    for n in $(seq "$count"); do
        chunk "$id" "$(part "$n")" --header "Content-Range: part $n/$count" &
        jobs+=($!)
    done
    for job in "${jobs[@]}"; do wait "$job"; done
    echo "$id"
}

parts_of_unknown_number() {
    local id n
    id=$(new_video)
    for n in $(seq $((count - 1))); do
        chunk "$id" "$(part "$n")" --header "Content-Range: part $n/*"
    done
    chunk "$id" "$(part "$count")" --header "Content-Range: part $count/$count"
    echo "$id"
}

delegated() {
    anonymous "/upload?token=$(new_token)" --form "file=@$SMALL" | field videoId
}

# The first answer names the video; every later part must name it too.
delegated_parts() {
    local url id
    url="/upload?token=$(new_token)"
    id=$(anonymous "$url" --header "Content-Range: part 1/$count" --form "file=@$(part 1)" | field videoId)
    delegated_rest "$url" "$id" "$(seq 2 "$count")"
}

delegated_parts_into_a_container() {
    delegated_rest "/upload?token=$(new_token)" "$(new_video)" "$(seq "$count")"
}

delegated_rest() { # PATH VIDEO_ID NUMBERS
    local n
    for n in $3; do
        anonymous "$1" --header "Content-Range: part $n/$count" \
            --form "file=@$(part "$n")" --form "videoId=$2" >/dev/null
    done
    echo "$2"
}

new_video() {
    known /videos "${json[@]}" --data '{"title": "a film from curl"}' | field videoId
}

new_token() {
    known /upload-tokens "${json[@]}" --data '{"ttl": 600}' | field token
}

chunk() { # VIDEO_ID FILE CURL_OPTION...
    known "/videos/$1/source" --form "file=@$2" "${@:3}" >/dev/null
}

known() { # PATH CURL_OPTION...
    anonymous "$@" --header "Authorization: Bearer $bearer"
}

anonymous() { # PATH CURL_OPTION...
    curl --silent --show-error --fail-with-body ${CA_CERT:+--cacert "$CA_CERT"} \
        --request POST --url "$ENDPOINT_URL$1" --header 'Accept: application/json' "${@:2}"
}

part() { # NUMBER, from 1
    printf '%s\n' "$PARTS"/part.* | sed -n "$1p"
}

json=(--header 'Content-Type: application/json')
count=$(printf '%s\n' "$PARTS"/part.* | wc -l)

main
