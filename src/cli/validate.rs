//! Validation of flag combinations, before anything is read or sent.
//!
//! Contradicting values are refused regardless of their origin. A flag given on the command line must also
//! have an effect; a value from the environment or the config file may be unused.

use std::path::Path;
use std::time::Duration;

use humantime::format_duration;
use ringlift::{RetryPolicy, transport::Timeouts};

use super::args::{Cli, CliCommand, GlobalArgs};
use super::client::MIN_SPEED_WINDOW;
use super::exit::CommandError;
use super::upload_args::{AfterArgs, UploadArgs};
use ringlift::Mode;

/// Returns a usage error for the first contradiction. `is_typed` returns `true` if a flag was given on the
/// command line.
pub(super) fn check(cli: &Cli, is_typed: impl Fn(&str) -> bool) -> Result<(), CommandError> {
    let refusal = times(&cli.global).or_else(|| match &cli.command {
        CliCommand::Upload(args) => upload(args, &is_typed).or_else(|| after(&args.after, &is_typed)),
        CliCommand::Resume(args) => after(&args.after, &is_typed),
        _ => None,
    });
    refusal.map_or(Ok(()), |why| Err(CommandError::usage(why)))
}

/// Returns why two time limits contradict each other: an inner limit must fit into the outer one.
fn times(global: &GlobalArgs) -> Option<String> {
    let timeout = global.timeout.unwrap_or(Timeouts::default().stall);
    let retry_max_time = global.retry_max_time.unwrap_or(RetryPolicy::default().max_time);
    let is_said = global.timeout.is_some() || global.retry_max_time.is_some();
    let is_retried = global.retries != Some(0);
    let shown = |time: Duration| format_duration(time).to_string();
    if let (Some(connect), Some(timeout)) = (global.connect_timeout, global.timeout)
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
    if let (Some(speed), Some(whole)) = (global.min_speed, global.retry_max_time)
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
    let refusal = if is_typed("chunk_size") && args.transfer.mode == Mode::Single {
        "--chunk-size has no effect with --mode single, which sends the whole file in one request"
    } else if is_typed("max_buffer_memory") && !reads_stdin {
        "--max-buffer-memory applies to standard input only: add `-` to the files"
    } else {
        return None;
    };
    Some(refusal.to_owned())
}

fn after(args: &AfterArgs, is_typed: impl Fn(&str) -> bool) -> Option<String> {
    let waits = args.wait.is_some() || args.verify;
    let refusal = "--wait-timeout has no effect without --wait playable or --verify";
    (is_typed("wait_timeout") && !waits).then(|| refusal.to_owned())
}

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
