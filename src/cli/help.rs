//! Texts of the help after the flags: examples first, then notes. The manual has the same texts.

/// After the short help of the program.
pub(super) const SHORT: &str = "\
`ringlift COMMAND -h` shows the common flags of a command, `ringlift COMMAND --help` all of them, \
`ringlift man | man -l -` the manual.";

/// After the long help of the program.
pub(super) const LONG: &str = "\
Examples:
  ringlift upload movie.mp4
  ringlift upload --sandbox --wait playable movie.mp4
  ringlift ingest /films
  ringlift resume
  ringlift demo

Every flag can also be set by an environment variable (RINGLIFT_CHUNK_SIZE for --chunk-size) and in a config file \
(chunk-size). A flag overrides the environment, the environment overrides the profile, and the profile overrides \
the rest of the file.

The config file is $XDG_CONFIG_HOME/ringlift/config.toml, or the one given by --config or RINGLIFT_CONFIG:

    retries = 20
    [upload]
    chunk-size = \"64MiB\"
    [profile.staging]
    sandbox = true

Values at the top apply to all commands, values under [upload] to `upload`, `resume` and `clean`, values under \
[ingest] to `ingest`, `submit`, `work` and `jobs`, values under another command to that command. `--profile staging` or RINGLIFT_PROFILE selects a profile, which has the same keys \
and sections.

The API key is read from APIVIDEO_API_KEY or --api-key-file, never from the command line.
Sizes are 1024-based (64MiB, 64M and 64m are equal). Times are written as 90s, 15m or 1h30m.

Exit codes: 0 success, 1 permanent failure, 2 usage error, 3 no such video, 4 no such file, 5 temporary \
failure (the same command may succeed later), 6 file or video in an unexpected state, 7 permission denied, \
8 and 10 limit of bytes or of time reached, 129 SIGHUP, 130 SIGINT, 143 SIGTERM.";

/// After the long help of `upload`.
pub(super) const UPLOAD: &str = "\
Examples:
  ringlift upload movie.mp4
  ringlift upload --title 'Summer' --tag travel --metadata camera=7 --private movie.mp4
  ringlift upload --title 'Summer: {stem}' --metadata from={path} *.mp4
  ringlift upload --transfers 4 --json *.mp4 | jq -r 'select(.event == \"file_done\").video_id'
  ffmpeg ... -f mp4 -movflags frag_keyframe - | ringlift upload --name live.mp4 --expected-size 20G -
  RINGLIFT_UPLOAD_TOKEN=to... ringlift upload movie.mp4
  ringlift upload https://example.com/movie.mp4
  ringlift upload --dry-run --mode parts --chunk-size 128M movie.mp4

An http or https URL in place of a file is fetched by the service itself, and no byte passes through this machine.

--title and the values of --metadata are templates: {stem} is the file's name without its extension, {name} the \
name, {path} the path as it is given, and {index} the number of the file on the command line. {{ and }} stand for a \
brace.

A file that a signal or a crash keeps from being begun is not in the journal, and `ringlift resume` does not know it: \
repeat the command, which uploads these files and skips the others.

A video that the upload creates gets a metadata entry `ringlift-upload` with a random value. The entry identifies \
the video if the response to its creation is lost: the next run, or `ringlift clean`, finds the video by it instead \
of creating a second one. `ringlift video update ID --metadata KEY=VALUE` replaces all metadata, and so removes the \
entry once the upload is complete. An upload with an upload token, or into a video given by --video-id, adds no entry.";

/// After the long help of `ingest`.
pub(super) const INGEST: &str = "\
Examples:
  ringlift ingest /films
  ringlift ingest /films --include '*.mov' --min-age 10m --title '{stem}' --metadata folder={dir} --dry-run
  ringlift ingest --manifest jobs.csv --report report.csv
  ringlift ingest --manifest report.csv --retry failed --report again.csv
  ringlift ingest /films --after move:/done --max-duration 8h --monitor 9000
  find /films -name '*.mp4' -print0 | ringlift ingest --files-from0 -
  ringlift ingest https://example.com/movie.mp4

Each file is a job in a queue, which is ringlift/jobs.db in $XDG_STATE_HOME or the file given by --queue. A job that \
is done is skipped by later runs, one that was interrupted goes on where it stopped, and one that failed for good is \
skipped with its reason until --retry failed or `ringlift jobs retry`. A file whose size or time changed is another \
job. A run also finishes the jobs that earlier runs left in its pool.

The first filter rule that matches a file decides. All --include rules come before all --exclude rules, and the rules \
of --filter-from come last, whatever their order on the command line.

A manifest has one job a line, as JSON or as CSV with a header. Its keys are `path` or `source_url`, and `id`, \
`title`, `description`, `tags`, `metadata`, `private`, `mode`, `chunk_size`, `priority`, `sha256` and others, named \
like the flags. Relative paths are relative to the manifest. A report is a manifest, too. A line that cannot be read, \
or whose file is missing, has a row in the report and no job, as the size and the time of a file are a part of the \
identity of its job: `ringlift jobs` does not show it. Repeat the same command once the file is there: the other jobs \
are skipped. As a manifest, the report refuses such a row, which has no title or visibility.";

/// After the long help of `submit`.
pub(super) const SUBMIT: &str = "\
Examples:
  ringlift submit /films
  ringlift submit --queue /var/lib/ringlift/jobs.db --pool archive --manifest jobs.jsonl
  ringlift submit --json /films | jq -r 'select(.event == \"job\").id'

Sends nothing to the service. The jobs are uploaded by `ringlift work` with the same queue, pool and account, which \
may run already.";

/// After the long help of `work`.
pub(super) const WORK: &str = "\
Examples:
  ringlift work --queue /var/lib/ringlift/jobs.db --report /var/log/ringlift.csv --monitor 9000
  ringlift work --drain --transfers 4
  ringlift work --pool archive --bwlimit '08:00,10M 20:00,off'

Several processes may work on one queue: each job is with one of them at a time. SIGTERM ends the command with exit \
code 0 once the active chunks are sent or given up; their jobs go on with the next worker. The exit code is 5 if the \
queue is away, so that the jobs wait for the end of their leases. Failed jobs do not change the exit code: see \
`ringlift jobs list --state failed`.";

/// After the long help of `jobs list`.
pub(super) const JOBS_LIST: &str = "\
Examples:
  ringlift jobs list
  ringlift jobs list --state failed --limit 20
  ringlift jobs list --page 3 --limit 50
  ringlift jobs list --json | jq -r 'select(.event == \"job\" and .state == \"done\").video_id'";

/// After the long help of `jobs show`.
pub(super) const JOBS_SHOW: &str = "\
Examples:
  ringlift jobs show 3f8c21d09a4b
  ringlift jobs show --json episode-12";

/// After the long help of `jobs retry`.
pub(super) const JOBS_RETRY: &str = "\
Examples:
  ringlift jobs retry 3f8c21d09a4b
  ringlift jobs list --state failed --json | jq -r 'select(.event == \"job\").id' | xargs ringlift jobs retry

A file that was missing when its manifest was read has no job: repeat `ringlift ingest` or `ringlift submit` with the \
manifest.";

/// After the long help of `jobs cancel`.
pub(super) const JOBS_CANCEL: &str = "\
Examples:
  ringlift jobs cancel 3f8c21d09a4b

A worker gives a cancelled job up within some seconds. The job can be queued again by `ringlift jobs retry`.";

/// After the long help of `jobs forget`.
pub(super) const JOBS_FORGET: &str = "\
Examples:
  ringlift jobs forget 3f8c21d09a4b

In a queue on NATS the file is found again by the mark of its video, if that is complete: to upload it anew, use \
`ringlift submit --force`.";

/// After the long help of `jobs pause` and `jobs resume`.
pub(super) const JOBS_PAUSE: &str = "\
Examples:
  ringlift jobs pause
  ringlift jobs resume
  ringlift jobs pause --pool archive";

/// After the long help of `jobs report`.
pub(super) const JOBS_REPORT: &str = "\
Examples:
  ringlift jobs report > report.csv
  ringlift jobs report --state failed --report failed.jsonl
  ringlift ingest --manifest failed.jsonl --retry failed

The rows are those of `ringlift ingest --report`: a report is a manifest. Jobs that are open have no row.";

/// After the long help of `resume`.
pub(super) const RESUME: &str = "\
Examples:
  ringlift resume --list
  ringlift resume
  ringlift resume --journal /var/lib/ingest/journal.db movie.mp4
  RINGLIFT_UPLOAD_TOKEN=to... ringlift resume movie.mp4

Only uploads to the selected service (--endpoint-url, --sandbox) are resumed, each with its original options. \
An upload that was started with an upload token needs that token.

The journal knows the uploads that have begun. The files that an interrupted `ringlift upload` had not begun are \
uploaded by the same command again, which skips what is uploaded. For many files use `ringlift ingest`: its queue \
knows every file before the first one is sent.";

/// After the long help of `clean`.
pub(super) const CLEAN: &str = "\
Examples:
  ringlift clean
  ringlift clean --yes --json

An upload cannot be resumed if it was abandoned, if it read standard input, or if its file has changed. \
Only videos that an upload created are deleted, never a video given by --video-id. A video whose creation \
received no response is found by its mark, the metadata entry `ringlift-upload`.";

/// After the long help of `serve`.
pub(super) const SERVE: &str = "\
Examples:
  ringlift serve --data /tmp/videos
  ringlift serve --data /tmp/videos --tls --limits sandbox
  ringlift serve --data /tmp/videos --faults plan.toml
  ringlift upload --endpoint-url https://localhost:8080 --ca-cert /tmp/videos/ca.pem movie.mp4

A fault plan is a TOML file with a list of faults. The first fault that matches a request and is not used up \
affects the request:

    [[fault]]
    on = \"chunk\"        # or auth, create, status, source, video, token, any
    part = 2            # only `Content-Range: part 2/...`
    action = { cut = { after_bytes = 1048576, how = \"reset\" } }

    [[fault]]
    on = \"chunk\"
    offset = 104857600  # only `Content-Range: bytes 104857600-...`
    action = \"close-after-recording\"

    [[fault]]
    on = \"any\"
    nth = 5             # from the fifth matching request on; default: the first
    times = 3           # three times; default: once; 0 means always
    action = { refuse = { status = 503, timing = \"early\" } }

Actions that take effect before the request:

    { cut = { after_bytes, how } }                 disconnect by reset or close
    close-before-recording                         read, store nothing, close
    { refuse = { status, slug, timing } }          answer with an error
    { too-many-requests = { retry_after_s, timing } }  answer 429
    { stall-reading = { after_bytes, for_ms } }    pause reading
    { throttle = { bytes_per_second } }            read slowly

Actions that take effect after the request was stored:

    close-after-recording                          close without a response
    { stall-answering = { for_ms } }               delay the response
    truncated-answer                               stop inside the response
    malformed-answer                               answer with invalid JSON
    html-answer                                    answer with a page of HTML
    other-video-id                                 answer with a different id

`timing` is after-body (the default), early (answer, then read the body) or early-close (answer and close). Byte \
counts refer to the body of the request, including the multipart envelope.";

/// After the long help of `tune`.
pub(super) const TUNE: &str = "\
Examples:
  ringlift tune movie.mp4
  ringlift tune --sandbox --plot tune.svg movie.mp4
  ringlift tune --production --max-requests 15 --write-config tuned.toml
  ringlift upload --config tuned.toml movie.mp4

Measures the readers on the file, the encryption and the loopback, then the path to the service with 1, 2, 4 and more \
connections. The path is measured inside requests that are under way, so that few requests suffice. The recommended \
number of connections is the smallest one that reaches 97 % of the best rate.

At most half of the request budget that the service states is used, and 20 requests are left. The first answer 429 \
ends the measurement. All videos that it creates have the metadata entry `ringlift-tune`, and are deleted at the end. \
After a crash, `ringlift clean --tune` deletes them and the temporary directory; after `tune --data DIR`, add the same \
`--data DIR`.";

/// After the long help of `completion`.
pub(super) const COMPLETION: &str = "\
Examples:
  ringlift completion bash > /etc/bash_completion.d/ringlift
  ringlift completion zsh > \"${fpath[1]}/_ringlift\"
  ringlift completion fish > ~/.config/fish/completions/ringlift.fish";

/// After the long help of `man`.
pub(super) const MAN: &str = "\
Examples:
  ringlift man | man -l -
  ringlift man ~/.local/share/man/man1";

/// After the long help of `video create`.
pub(super) const VIDEO_CREATE: &str = "\
Examples:
  ringlift video create --title 'Summer'
  ringlift video create --source https://example.com/movie.mp4 --wait playable
  ringlift upload --video-id $(ringlift video create --title 'Summer') movie.mp4";

/// After the long help of `video update`.
pub(super) const VIDEO_UPDATE: &str = "\
Examples:
  ringlift video update vi4k0jvEUuaTdRAEjQ4Jfrgz --title 'Autumn' --tag travel --tag 2024
  ringlift video update vi4k0jvEUuaTdRAEjQ4Jfrgz --no-tags --no-player --public

Properties without a flag stay as they are. Tags and metadata are replaced as a whole. The flags are read from the \
command line only, never from the environment or the config file.";

/// After the long help of `video list`.
pub(super) const VIDEO_LIST: &str = "\
Examples:
  ringlift video list --tag travel --sort-by created,desc
  ringlift video list --all --json | jq -r 'select(.event == \"video\").video.videoId'";

#[cfg(test)]
mod tests {
    use ringlift::server::FaultPlan;

    use super::*;

    #[test]
    fn the_example_of_a_fault_plan_is_one() {
        let lines = SERVE.lines().skip_while(|line| !line.contains("[[fault]]"));
        let example: Vec<&str> = lines.take_while(|line| !line.starts_with("Actions")).collect();
        assert_eq!(FaultPlan::parse(&example.join("\n")).unwrap().faults.len(), 3);
    }

    #[test]
    fn every_action_of_the_fault_plan_is_listed() {
        for (action, written) in [
            ("cut", "{ cut = { after_bytes = 1 } }"),
            ("close-before-recording", "\"close-before-recording\""),
            ("refuse", "{ refuse = { status = 503, slug = \"x\", timing = \"early-close\" } }"),
            ("too-many-requests", "{ too-many-requests = { retry_after_s = 1, timing = \"after-body\" } }"),
            ("stall-reading", "{ stall-reading = { after_bytes = 1, for_ms = 1 } }"),
            ("throttle", "{ throttle = { bytes_per_second = 1 } }"),
            ("close-after-recording", "\"close-after-recording\""),
            ("stall-answering", "{ stall-answering = { for_ms = 1 } }"),
            ("truncated-answer", "\"truncated-answer\""),
            ("malformed-answer", "\"malformed-answer\""),
            ("html-answer", "\"html-answer\""),
            ("other-video-id", "\"other-video-id\""),
        ] {
            assert!(SERVE.contains(action), "{action}");
            FaultPlan::parse(&format!("[[fault]]\non = \"any\"\naction = {written}")).unwrap();
        }
        // The parser names the actions that it accepts.
        let error = FaultPlan::parse("[[fault]]\non = \"any\"\naction = \"none\"").unwrap_err().to_string();
        assert_eq!(error.matches('`').count() / 2, 13, "{error}");
    }
}
