# What the cases written in bash share.

try() { # NAME FILE COMMAND...: the command uploads the file and prints the id of the video that it filled
    local id status
    set +e
    id=$(set -e; "${@:3}")
    status=$?
    set -e
    if [ "$status" -eq 0 ]; then echo "$1 ok $id $2"; else echo "$1 failed exit status $status"; fi
}

field() { # NAME: its value in the last line of JSON on stdin that has it
    python3 -c '
import json, sys
print([line[sys.argv[1]] for line in map(json.loads, sys.stdin.read().splitlines()) if sys.argv[1] in line][-1])' "$1"
}
