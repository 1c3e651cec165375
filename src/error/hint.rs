//! Advice on what to do about a failure.

use std::fmt;

/// A setting to change, or a call to make, so that the failed operation can succeed.
///
/// `Display` names the setting of the library. A program with settings of its own, such as command-line
/// flags, matches on the hint and names those instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Hint {
    /// Use larger chunks.
    LargerChunks,
    /// Use smaller chunks.
    SmallerChunks,
    /// Start a new upload with smaller chunks. An upload that has started keeps its chunk size.
    SmallerChunksInNewUpload,
    /// Use the chunk size that the upload started with, or a new video.
    SameChunkSize,
    /// Use the mode that the upload started with, or a new video.
    SameMode,
    /// Send the file in chunks, not in one request.
    SendInChunks,
    /// Send the stream in parts: the requested mode needs the length.
    SendInParts,
    /// Send fewer and larger chunks.
    FewerRequests,
    /// Send less at once: smaller chunks over fewer connections.
    SendLessAtOnce,
    /// Lower the minimum speed, raise the bandwidth limit, or use fewer connections.
    LowerMinimumSpeed,
    /// Allow the service or the network more time.
    LongerTimeout,
    /// Allow the disk more time.
    LongerReadTimeout,
    /// Trust the certificate of the service's authority.
    TrustCertificate,
    /// Check the proxy and its URL, or connect without it.
    CheckProxy,
    /// Give the user name and the password for the proxy.
    ProxyCredentials,
    /// Retry later. The upload continues where it stopped.
    RetryLater,
    /// Check the video's status, and retry.
    CheckStatus,
    /// Create a new upload token.
    NewUploadToken,
    /// List the upload tokens that have not expired.
    ListUploadTokens,
    /// Allow the chunks of streams more memory, or use smaller chunks.
    MoreStreamMemory,
    /// Use a newer version, or another journal file.
    NewerVersion,
    /// Finish the journal's uploads with the older version, or use another journal file.
    OlderVersion,
    /// Move the damaged journal away, and look for unfinished videos.
    ReplaceJournal,
    /// Check the permissions of the journal, or use another file.
    JournalPermissions,
    /// Make room for the journal, or use a file on another disk.
    RoomForJournal,
    /// Remove the lock file of another user, or use another journal file.
    RemoveLockFile,
    /// Start the upload again.
    StartAgain,
    /// Use another journal file.
    OtherJournal,
    /// Use a journal file on another disk.
    JournalOnOtherDisk,
    /// Resume the moved file at its new path.
    MovedFile,
    /// Start a new upload of the file. The incomplete video can be deleted.
    NewUpload,
    /// Allow the service more time to process an uploaded file. Do not upload the file again.
    LongerWait,
}

impl Hint {
    /// Every hint.
    pub const ALL: [Hint; 32] = {
        use Hint::*;
        [
            LargerChunks,
            SmallerChunks,
            SmallerChunksInNewUpload,
            SameChunkSize,
            SameMode,
            SendInChunks,
            SendInParts,
            FewerRequests,
            SendLessAtOnce,
            LowerMinimumSpeed,
            LongerTimeout,
            LongerReadTimeout,
            TrustCertificate,
            CheckProxy,
            ProxyCredentials,
            RetryLater,
            CheckStatus,
            NewUploadToken,
            ListUploadTokens,
            MoreStreamMemory,
            NewerVersion,
            OlderVersion,
            ReplaceJournal,
            JournalPermissions,
            RoomForJournal,
            RemoveLockFile,
            StartAgain,
            OtherJournal,
            JournalOnOtherDisk,
            MovedFile,
            NewUpload,
            LongerWait,
        ]
    };

    /// Returns the text that `Display` writes.
    pub const fn text(self) -> &'static str {
        match self {
            Hint::LargerChunks => "use a larger chunk size",
            Hint::SmallerChunks => "use a smaller chunk size",
            Hint::SmallerChunksInNewUpload => {
                "start a new upload with a smaller chunk size: an upload that has started keeps its own"
            }
            Hint::SameChunkSize => "use the chunk size that the upload started with, or a new video",
            Hint::SameMode => "continue in the mode that the upload started with, or use a new video",
            Hint::SendInChunks => "send the file in chunks: `Mode::Bytes` or `Mode::Parts`",
            Hint::SendInParts => "send the stream in parts: `Mode::Parts`",
            Hint::FewerRequests => {
                "wait a minute, or send fewer and larger chunks: every chunk is one request"
            }
            Hint::SendLessAtOnce => {
                "try again; on a slow line send less at once: a smaller chunk size, fewer lanes (`Settings::lanes`)"
            }
            Hint::LowerMinimumSpeed => {
                "lower the minimum speed, raise the limit (`Settings::bandwidth`), or use fewer lanes \
                 (`Settings::lanes`)"
            }
            Hint::LongerTimeout => {
                "check the network and the endpoint's URL; if the service only needs longer, allow it a longer \
                 timeout"
            }
            Hint::LongerReadTimeout => {
                "check the disk or the network file system that holds the file; if it only needs longer, allow \
                 it a longer timeout"
            }
            Hint::TrustCertificate => {
                "check the endpoint's URL and the clock; for a service of your own, trust its authority's \
                 certificate (`Settings::trust`)"
            }
            Hint::CheckProxy => "check the proxy and its URL (`DialSettings::proxy`), or connect without it",
            Hint::ProxyCredentials => {
                "put the right user name and password into the URL of the proxy (`DialSettings::proxy`)"
            }
            Hint::RetryLater => {
                "try again later; with a journal (`Settings::journal`) the same upload continues where it stopped"
            }
            Hint::CheckStatus => "check the video's status (`Client::video_status`), and try again",
            Hint::NewUploadToken => "create a new one with the API key (`Client::create_upload_token`)",
            Hint::ListUploadTokens => {
                "check the token and the environment: `Client::upload_tokens` lists those that have not expired"
            }
            Hint::MoreStreamMemory => "raise `Settings::buffer_bytes` or use smaller chunks",
            Hint::NewerVersion => {
                "use a newer version of ringlift, or set `Settings::journal` to another file"
            }
            Hint::OlderVersion => {
                "finish its uploads with that version, or set `Settings::journal` to another file"
            }
            Hint::ReplaceJournal => {
                "move it away to begin a new one, and list the videos to find unfinished ones"
            }
            Hint::JournalPermissions => "check its permissions, or set `Settings::journal` to another file",
            Hint::RoomForJournal => "make room, or set `Settings::journal` to a file on another disk",
            Hint::RemoveLockFile => {
                "remove the lock file when no run of that user is under way, or set `Settings::journal` to another file"
            }
            Hint::StartAgain => "start the upload again",
            Hint::OtherJournal => "set `Settings::journal` to another file",
            Hint::JournalOnOtherDisk => "set `Settings::journal` to a file on another disk",
            Hint::MovedFile => "if the file was moved, resume it at its new path",
            Hint::NewUpload => "start a new upload of the file, and delete the incomplete video",
            Hint::LongerWait => {
                "do not upload the file again: its status (`Client::video_status`) shows the progress; allow a \
                 longer wait"
            }
        }
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// Advice as an error holds it: a hint if it names a setting, otherwise a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    Text(&'static str),
    Hint(Hint),
}

impl Advice {
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Advice::Text(text) => text,
            Advice::Hint(hint) => hint.text(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_holds_every_hint_in_order() {
        for (index, hint) in Hint::ALL.into_iter().enumerate() {
            assert_eq!(hint as usize, index, "{hint:?}");
        }
        assert_eq!(Hint::ALL.len(), Hint::LongerWait as usize + 1);
    }
}
