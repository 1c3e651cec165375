//! The library's hints in the words of the command: flags and subcommands.

use ringlift::Hint;

/// Returns the advice that the command gives for `hint`.
pub(super) fn advice(hint: Hint) -> &'static str {
    for_the_upload(hint)
        .or_else(|| for_the_network(hint))
        .or_else(|| for_the_journal(hint))
        // The library's text names no flag, which is right where no flag exists, and for a hint of a later version.
        .unwrap_or(hint.text())
}

/// Chunks, modes and videos.
fn for_the_upload(hint: Hint) -> Option<&'static str> {
    let text = match hint {
        Hint::LargerChunks => "use a larger --chunk-size",
        Hint::SmallerChunks => "use a smaller --chunk-size",
        Hint::SmallerChunksInNewUpload => {
            "start anew with a smaller --chunk-size: an upload that has started keeps its own, until \
             `ringlift clean --all` removes it"
        }
        Hint::SameChunkSize => "use the --chunk-size that the upload started with, or a new video",
        Hint::SameMode => "continue with the --mode that the upload started with, or use a new video",
        Hint::SendInChunks => "send the file in chunks: --mode bytes or --mode parts",
        Hint::SendInParts => "send the stream in parts: --mode parts",
        Hint::RetryLater => "try again later; the same command continues where it stopped",
        Hint::CheckStatus => "check the video's state with `ringlift status`, and try again",
        Hint::NewUploadToken => "create a new one: `ringlift token create`, with the API key",
        Hint::ListUploadTokens => {
            "check the token and the environment: `ringlift token list` shows those that have not expired"
        }
        Hint::FilesOfDirectory => {
            "name the files in it, or upload the whole directory with `ringlift ingest`"
        }
        Hint::MoreStreamMemory => "raise --max-buffer-memory or lower --chunk-size",
        Hint::MovedFile => "if the file was moved, give its new path: `ringlift resume FILE`",
        Hint::NewUpload => "`ringlift upload` starts again; `ringlift clean` removes the incomplete video",
        Hint::StartAgain => "run the command again",
        _ => return None,
    };
    Some(text)
}

/// Connections, proxies, speeds and timeouts.
fn for_the_network(hint: Hint) -> Option<&'static str> {
    let text = match hint {
        Hint::SendLessAtOnce => {
            "try again; on a slow line send less at once: a smaller --chunk-size, a lower --concurrency"
        }
        Hint::LowerMinimumSpeed => "lower --min-speed, raise --bwlimit, or lower --concurrency",
        Hint::LongerTimeout => {
            "check the network and the endpoint's URL; if the service only needs longer, allow it more time \
             (--timeout)"
        }
        Hint::LongerReadTimeout => {
            "check the disk or the network file system that holds the file; if it only needs longer, allow it \
             more time (--timeout)"
        }
        Hint::LongerWait => {
            "do not upload the file again: `ringlift status` with the video's id shows its progress, and \
             --wait-timeout extends the wait"
        }
        Hint::TrustCertificate => {
            "check the URL and the clock; for a service of your own, name its authority's certificate with \
             --ca-cert"
        }
        Hint::CheckProxy => {
            "check the proxy's URL, which is that of --proxy or of HTTPS_PROXY, http_proxy or ALL_PROXY; `--proxy none` \
             connects without a proxy, NO_PROXY exempts hosts"
        }
        Hint::ProxyCredentials => {
            "put the right user name and password into the proxy's URL: http://USER:PASSWORD@HOST:PORT in \
             RINGLIFT_PROXY or HTTPS_PROXY, special characters percent-encoded"
        }
        _ => return None,
    };
    Some(text)
}

/// The journal's file. `ingest` and `work` keep it beside their queue.
fn for_the_journal(hint: Hint) -> Option<&'static str> {
    let text = match hint {
        Hint::OtherJournal => "name another file with --journal (--queue in `ingest` and `work`)",
        Hint::JournalOnOtherDisk => {
            "name a file on another disk with --journal (--queue in `ingest` and `work`)"
        }
        Hint::NewerVersion => {
            "update ringlift, or name another file with --journal (--queue in `ingest` and `work`)"
        }
        Hint::OlderVersion => {
            "finish its uploads with that version, or name another file with --journal \
             (--queue in `ingest` and `work`)"
        }
        Hint::ReplaceJournal => {
            "move it away to begin a new one, and look for unfinished videos with `ringlift video list`"
        }
        Hint::JournalPermissions => {
            "check its permissions, or name another file with --journal (--queue in `ingest` and `work`)"
        }
        Hint::RoomForJournal => {
            "make room, or name a file on another disk with --journal (--queue in `ingest` and `work`)"
        }
        Hint::RemoveLockFile => {
            "remove the lock file when no run of that user is under way, or name another file with --journal \
             (--queue in `ingest` and `work`)"
        }
        _ => return None,
    };
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_names_no_item_of_the_library() {
        for hint in Hint::ALL {
            let text = advice(hint);
            assert!(!text.contains("::") && !text.ends_with('.'), "{hint:?}: {text}");
        }
    }
}
