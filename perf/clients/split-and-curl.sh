#!/bin/sh
# Uploads a file as the guide shows it, with split and curl: split-and-curl.sh URL FILE CHUNK_BYTES
set -eu
url=$1 file=$2 chunk_bytes=$3
parts=$(mktemp -d "$(dirname "$file")/parts-XXXXXX")
trap 'rm -rf "$parts"' EXIT
split --bytes="$chunk_bytes" --suffix-length=4 "$file" "$parts/part."
count=$(ls "$parts" | wc -l)
number=0
for part in "$parts"/part.*; do
    number=$((number + 1))
    curl --silent --show-error --fail --output /dev/null --user "$APIVIDEO_API_KEY:" \
        --header "Content-Range: part $number/$count" --form "file=@$part" "$url/videos/vi0/source"
done
