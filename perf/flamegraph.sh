#!/bin/sh
# Records a flame graph of one upload and prints where the time goes.
#
#   perf/flamegraph.sh [http|https] [MIB] [ringlift arguments...]
#
# Needs perf(1) and inferno (`cargo install inferno`). Writes target/perf/flame-<scheme>.svg and .txt.
# RINGLIFT=<binary> profiles that one rather than building one with frame pointers.
set -eu
scheme=${1:-http} mib=${2:-2048}
[ $# -gt 1 ] && shift 2 || shift $#

cd "$(dirname "$0")/.."
# Absolute, for XDG_STATE_HOME counts only so.
out=$(realpath -m "${CARGO_TARGET_DIR:-target}")
bin=$out/release
for tool in perf inferno-collapse-perf inferno-flamegraph; do
    command -v "$tool" >/dev/null || { echo "flamegraph.sh: $tool is not installed" >&2; exit 1; }
done

if [ -z "${RINGLIFT:-}" ]; then
    # Frames have names and callers; the code is otherwise that of the release.
    CARGO_PROFILE_RELEASE_DEBUG=line-tables-only RUSTFLAGS="${RUSTFLAGS:-} -C force-frame-pointers=yes" \
        cargo build --release --quiet --target-dir "$out/flame" --bin ringlift
    RINGLIFT=$out/flame/release/ringlift
fi
cargo build --release --quiet --package ringlift-perf

mkdir -p "$out/perf"
work=$(mktemp -d "$out/perf/flame-XXXXXX")
mkfifo "$work/questions"
trap 'kill "$sink" 2>/dev/null || true; rm -rf "$work"' EXIT

"$bin/perf" sink "$scheme" "$work/ca.pem" <"$work/questions" >"$work/sink" &
sink=$!
exec 3>"$work/questions"
until [ -s "$work/sink" ]; do sleep 0.1; done
url=$(head -n 1 "$work/sink")
[ "$scheme" = https ] && set -- --ca-cert "$work/ca.pem" "$@"

head -c "${mib}M" /dev/urandom >"$work/movie.mp4"
sync "$work/movie.mp4"
export APIVIDEO_API_KEY=perf XDG_STATE_HOME="$work/state"
perf record --quiet --freq 1999 --call-graph fp --output "$work/perf.data" -- \
    "$RINGLIFT" upload --quiet --endpoint-url "$url" \
    --mode bytes --chunk-size 64MiB --concurrency 1 "$@" "$work/movie.mp4"

perf script --input "$work/perf.data" 2>/dev/null | inferno-collapse-perf >"$work/stacks"
inferno-flamegraph --title "ringlift, $scheme, $mib MiB $*" <"$work/stacks" >"$out/perf/flame-$scheme.svg"

# A stack's last frame is where the processor was.
{
    echo "top ten, part of all samples, by where the processor was:"
    awk '{ count = $NF; sub(/ [0-9]+$/, ""); n = split($0, frames, ";"); self[frames[n]] += count; all += count }
         END { for (frame in self) printf "%6.2f %%  %s\n", 100 * self[frame] / all, frame }' "$work/stacks" |
        sort -rn | head -n 10
} | tee "$out/perf/flame-$scheme.txt"
echo "wrote $out/perf/flame-$scheme.svg"
