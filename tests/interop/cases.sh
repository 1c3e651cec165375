# Functions for the cases in bash.

try() { # NAME FILE COMMAND...: the command uploads the file and prints the id of the video that it filled
    local id status
    set +e
    id=$(set -e; "${@:3}")
    status=$?
    set -e
    if [ "$status" -eq 0 ]; then echo "$1 ok $id $2"; else echo "$1 failed exit status $status"; fi
}

field() { # NAME: its value in the last line of JSON on stdin that has it; a NAME may be a path, a.b
    python3 -c '
import json, sys
def find(value):
    for name in sys.argv[1].split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
found = [find(json.loads(line)) for line in sys.stdin]
print([value for value in found if value is not None][-1])' "$1"
}
