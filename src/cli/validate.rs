//! Validation of flag combinations, before anything is read or sent.
//!
//! Contradicting values are refused regardless of their origin. A flag given on the command line must also
//! have an effect; a value from the environment or the config file may be unused.

use std::ffi::OsString;
use std::iter;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};
use humantime::format_duration;
use ringlift::{Mode, RetryPolicy, Timeouts};

use super::args::{Cli, CliCommand};
use super::client::MIN_SPEED_WINDOW;
use super::exit::CommandError;
use super::fetch;
use super::ingest_args::InputArgs;
use super::service_args::ServiceArgs;
use super::upload;
use super::upload_args::{AfterArgs, UploadArgs};

/// Returns a usage error for the first contradiction. `is_typed` returns `true` if a flag was given on the
/// command line.
pub(super) fn check(cli: &Cli, is_typed: impl Fn(&str) -> bool) -> Result<(), CommandError> {
    let refusal = times(&cli.global.service).or_else(|| match &cli.command {
        CliCommand::Upload(args) => upload(args, &is_typed).or_else(|| {
            // A URL is always waited for.
            let fetches = args.files.iter().any(|file| fetch::is_url(file.as_os_str()));
            if fetches { None } else { after(&args.after, &is_typed) }
        }),
        CliCommand::Resume(args) => after(&args.after, &is_typed),
        CliCommand::Ingest(args) => {
            inputs(&args.inputs, &is_typed).or_else(|| after(&args.run.check, &is_typed))
        }
        CliCommand::Submit(args) => inputs(&args.inputs, &is_typed),
        CliCommand::Work(args) => after(&args.run.check, &is_typed),
        _ => None,
    });
    refusal.map_or(Ok(()), |why| Err(CommandError::usage(why)))
}

/// Returns why two time limits contradict each other: an inner limit must fit into the outer one.
fn times(service: &ServiceArgs) -> Option<String> {
    let timeout = service.timeout.unwrap_or(Timeouts::default().stall);
    let retry_max_time = service.retry_max_time.unwrap_or(RetryPolicy::default().max_time);
    let is_said = service.timeout.is_some() || service.retry_max_time.is_some();
    // Without retries --retry-max-time limits nothing.
    let is_retried = service.retries != Some(0);
    let shown = |time: Duration| format_duration(time).to_string();
    if let (Some(connect), Some(timeout)) = (service.connect_timeout, service.timeout)
        && connect > timeout
    {
        let (connect, timeout) = (shown(connect), shown(timeout));
        return Some(format!(
            "--connect-timeout {connect} is longer than --timeout {timeout}: use a shorter --connect-timeout"
        ));
    }
    if is_said && is_retried && retry_max_time < timeout {
        let (whole, one) = (shown(retry_max_time), shown(timeout));
        return Some(format!(
            "--retry-max-time {whole} is shorter than the --timeout of {one}: a single stalled connection would \
             leave no time for a retry; lower --timeout or raise --retry-max-time"
        ));
    }
    if let (Some(speed), Some(whole)) = (service.min_speed, service.retry_max_time)
        && is_retried
        && whole < MIN_SPEED_WINDOW
    {
        let (whole, window) = (shown(whole), shown(MIN_SPEED_WINDOW));
        return Some(format!(
            "--retry-max-time {whole} is too short for --min-speed {speed}, which is measured over {window}"
        ));
    }
    None
}

fn upload(args: &UploadArgs, is_typed: impl Fn(&str) -> bool) -> Option<String> {
    let reads_stdin = args.files.iter().any(|file| file == Path::new("-"));
    let refusal = if is_typed("chunk_size") && args.transfer.chunks.mode == Mode::Single {
        SINGLE_WITHOUT_CHUNKS
    } else if is_typed("max_buffer_memory") && !reads_stdin {
        "--max-buffer-memory applies to standard input only: add `-` to the files"
    } else if args.files.len() > 1 && args.description.title.as_deref().is_some_and(upload::is_same_for_all) {
        "--title would give all videos the same title: use a template, such as --title 'Summer: {stem}', or leave \
         --title out, so that each is titled as its file"
    } else {
        return urls(args, is_typed);
    };
    Some(refusal.to_owned())
}

fn inputs(args: &InputArgs, is_typed: impl Fn(&str) -> bool) -> Option<String> {
    let has_list = [&args.manifest, &args.files_from, &args.files_from0].iter().any(|list| !list.is_empty());
    // The first of two readers would leave nothing to the second.
    if let [first, second, ..] = flags_of_stdin(args)[..] {
        return Some(format!(
            "{first} - and {second} - both read standard input: use a file for one of the two"
        ));
    }
    let refusal = if args.sources.is_empty() && !has_list {
        "there is nothing to read: give a SOURCE, --manifest, --files-from or --files-from0"
    } else if is_typed("chunk_size") && args.chunks.mode == Mode::Single {
        SINGLE_WITHOUT_CHUNKS
    } else if is_typed("manifest_format") && args.manifest.is_empty() {
        "--manifest-format has no effect without --manifest"
    } else if is_typed("force") && is_typed("retry") {
        "--force begins every job anew, which includes those of --retry: leave out one of the two"
    } else {
        return None;
    };
    Some(refusal.to_owned())
}

/// Returns the flag of each list that is read from standard input.
fn flags_of_stdin(args: &InputArgs) -> Vec<&'static str> {
    let lists = [
        ("--manifest", &args.manifest),
        ("--files-from", &args.files_from),
        ("--files-from0", &args.files_from0),
    ];
    let of_stdin = |paths: &[PathBuf]| paths.iter().filter(|path| *path == Path::new("-")).count();
    lists.into_iter().flat_map(|(flag, paths)| iter::repeat_n(flag, of_stdin(paths))).collect()
}

/// Returns why a flag has no effect on URLs, which the service fetches by itself.
fn urls(args: &UploadArgs, is_typed: impl Fn(&str) -> bool) -> Option<String> {
    if !args.files.iter().any(|file| fetch::is_url(file.as_os_str())) {
        return None;
    }
    let of_transfer = URL_LESS.into_iter().find(|(id, _)| is_typed(id));
    of_transfer.map(|(_, flag)| {
        format!("{flag} has no effect on a URL, which the service fetches by itself: leave out {flag}")
    })
}

fn after(args: &AfterArgs, is_typed: impl Fn(&str) -> bool) -> Option<String> {
    let waits = args.wait.is_some() || args.verify;
    let refusal = "--wait-timeout has no effect without --wait playable or --verify";
    (is_typed("wait_timeout") && !waits).then(|| refusal.to_owned())
}

/// Refuses the value of a flag that is written as a separate word although the flag takes it only after `=`. clap
/// would take the word for a file: `--progress always` would upload a file called `always`.
pub(super) fn check_detached_values(
    command: &Command,
    typed: &ArgMatches,
    argv: &[OsString],
) -> Result<(), CommandError> {
    // Only a listed value can be distinguished from the name of a file.
    let detached = |flag: &&Arg| flag.is_require_equals_set() && !flag.get_possible_values().is_empty();
    let flags: Vec<&Arg> = flags_of_called(command, typed).into_iter().filter(detached).collect();
    let words = argv.iter().take_while(|word| *word != "--");
    for (word, next) in words.clone().zip(words.skip(1)) {
        let (Some(word), Some(next)) = (word.to_str(), next.to_str()) else { continue };
        let takes = |flag: &&&Arg| flag.get_possible_values().iter().any(|value| value.matches(next, false));
        if let Some(flag) = flags.iter().filter(|flag| names_flag(word, flag)).find(takes) {
            let long = flag.get_long().unwrap_or_default();
            return Err(CommandError::usage(format!(
                "write --{long}={next}, with `=`: `{word} {next}` names a file called `{next}`, which would be \
                 written as ./{next}"
            )));
        }
    }
    Ok(())
}

/// Returns the flags of the called subcommand and of the commands above it.
fn flags_of_called<'a>(command: &'a Command, typed: &ArgMatches) -> Vec<&'a Arg> {
    let (mut called, mut typed) = (command, typed);
    let mut flags: Vec<&Arg> = called.get_arguments().collect();
    while let Some((name, below)) = typed.subcommand() {
        let Some(subcommand) = called.find_subcommand(name) else { break };
        (called, typed) = (subcommand, below);
        flags.extend(called.get_arguments());
    }
    flags
}

/// Returns `true` if the word is the flag in its long or short form.
fn names_flag(word: &str, flag: &Arg) -> bool {
    let is_long = flag.get_long().is_some_and(|long| word.strip_prefix("--") == Some(long));
    // Short flags may share one word: `-vP`.
    let is_short = word.starts_with('-') && !word.starts_with("--");
    is_long || is_short && flag.get_short().is_some_and(|short| word.ends_with(short))
}

const SINGLE_WITHOUT_CHUNKS: &str =
    "--chunk-size has no effect with --mode single, which sends the whole file in one request";

/// Flags without an effect on a URL.
const URL_LESS: [(&str, &str); 14] = [
    ("video_id", "--video-id"),
    ("upload_token", "--upload-token"),
    ("upload_token_file", "--upload-token-file"),
    ("mode", "--mode"),
    ("chunk_size", "--chunk-size"),
    ("concurrency", "--concurrency"),
    ("reader", "--reader"),
    ("bwlimit", "--bwlimit"),
    ("checksum", "--checksum"),
    ("on_change", "--on-change"),
    ("sha256", "--sha256"),
    ("verify", "--verify"),
    ("force", "--force"),
    ("journal", "--journal"),
];

#[cfg(test)]
mod tests {
    use crate::cli::config::parse;
    use crate::cli::exit::Exit;

    fn check(line: &str, environment: &[(&str, &str)]) -> Result<(), String> {
        let argv: Vec<_> = format!("ringlift {line}").split_whitespace().map(Into::into).collect();
        let find =
            |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, it)| (*it).to_owned());
        parse(&argv, find).map(drop).map_err(|failure| {
            assert_eq!(failure.exit(), Exit::Usage, "{line}");
            failure.to_string()
        })
    }

    #[test]
    fn contradicting_values_are_refused_and_both_are_named() {
        for (line, named) in [
            ("upload --connect-timeout 5m --timeout 1m f", ["--connect-timeout 5m", "--timeout 1m"]),
            ("upload --retry-max-time 30s f", ["--retry-max-time 30s", "1m"]),
            ("upload --timeout 20m f", ["--retry-max-time 15m", "20m"]),
            ("status --timeout 2m --retry-max-time 1m v", ["--retry-max-time 1m", "2m"]),
            (
                "upload --timeout 5s --retry-max-time 20s --min-speed 1M f",
                ["--retry-max-time 20s", "--min-speed 1 MiB"],
            ),
            ("upload --mode single --chunk-size 64M f", ["--chunk-size", "--mode single"]),
            ("upload --max-buffer-memory 1G f", ["--max-buffer-memory", "`-`"]),
            ("upload --wait-timeout 2h f", ["--wait-timeout", "--verify"]),
            ("resume --wait-timeout 2h", ["--wait-timeout", "--wait"]),
        ] {
            let refused = check(line, &[]).unwrap_err();
            assert!(named.iter().all(|name| refused.contains(name)), "{line}: {refused}");
        }
    }

    #[test]
    fn a_value_as_a_separate_word_is_refused_instead_of_uploaded() {
        for line in [
            "upload --progress always f",
            "upload -P never f",
            "upload -vP auto f",
            "upload f --checksum always",
            "upload --transcript-summary abstract f",
            "--progress always upload f",
        ] {
            assert!(check(line, &[]).unwrap_err().contains("with `=`"), "{line}");
        }
        for line in [
            "upload -P f",
            "upload --progress=always f",
            "upload -P ./always",
            "upload -P -- always",
            "upload --checksum f",
        ] {
            check(line, &[]).unwrap();
        }
    }

    #[test]
    fn one_title_for_several_files_is_refused() {
        assert!(check("upload --title x a b", &[]).unwrap_err().contains("--title 'Summer: {stem}'"));
        check("upload --title x-{stem} a b", &[]).unwrap();
        check("upload --title x a", &[]).unwrap();
        check("upload a b", &[("RINGLIFT_TITLE", "x")]).unwrap_err();
    }

    #[test]
    fn flags_about_bytes_have_no_effect_on_a_url() {
        for flag in ["--mode parts", "--chunk-size 5M", "--video-id vi1", "--sha256", "--bwlimit 1M"] {
            assert!(check(&format!("upload {flag} https://a/b.mp4"), &[]).is_err(), "{flag}");
        }
        for flag in ["--wait-timeout 2h", "--wait playable", "--title x", "--tag y", "--retries 3"] {
            check(&format!("upload {flag} https://a/b.mp4"), &[]).unwrap();
        }
    }

    #[test]
    fn compatible_flags_are_accepted() {
        for line in [
            "upload --timeout 5s f",
            "upload --connect-timeout 2m f",
            "upload --timeout 1m --retry-max-time 1m f",
            "upload --retry-max-time 1s --retries 0 f",
            "upload --chunk-size 64M f",
            "upload --max-buffer-memory 1G -",
            "upload --wait-timeout 2h --verify f",
            "resume --wait-timeout 2h --wait playable",
        ] {
            check(line, &[]).unwrap();
        }
    }

    #[test]
    fn environment_values_may_be_unused_but_not_contradictory() {
        let habits = [("RINGLIFT_CHUNK_SIZE", "64M"), ("RINGLIFT_WAIT_TIMEOUT", "2h")];
        check("upload --mode single f", &habits).unwrap();
        check("upload f", &[("RINGLIFT_MAX_BUFFER_MEMORY", "1G")]).unwrap();
        check("upload --wait-timeout 2h f", &[("RINGLIFT_WAIT", "playable")]).unwrap();
        check("upload --timeout 2m f", &[("RINGLIFT_RETRY_MAX_TIME", "1m")]).unwrap_err();
        check("upload --chunk-size 64M f", &[("RINGLIFT_MODE", "single")]).unwrap_err();
    }
}
