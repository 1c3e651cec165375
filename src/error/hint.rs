//! Advice on what to do about a failure.

use std::fmt;

/// Defines the hints. Each stands here once, with its text, so none can be missing from `ALL` or from `text`.
macro_rules! hints {
    ($(#[$about:meta])* pub enum $hint:ident { $($(#[$doc:meta])* $name:ident => $text:literal,)* }) => {
        $(#[$about])*
        pub enum $hint {
            $($(#[$doc])* $name,)*
        }

        impl $hint {
            /// Every hint.
            pub const ALL: [$hint; 34] = [$($hint::$name),*];

            /// Returns the text that `Display` writes.
            pub const fn text(self) -> &'static str {
                match self {
                    $($hint::$name => $text,)*
                }
            }
        }
    };
}

hints! {
    /// A setting to change, or a call to make, so that the failed operation can succeed.
    ///
    /// `Display` names the setting of the library. A program with settings of its own, such as command-line
    /// flags, matches on the hint and names those instead.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub enum Hint {
        /// Use larger chunks.
        LargerChunks => "use a larger chunk size",
        /// Use smaller chunks.
        SmallerChunks => "use a smaller chunk size",
        /// Start a new upload with smaller chunks. An upload that has started keeps its chunk size.
        SmallerChunksInNewUpload =>
            "start a new upload with a smaller chunk size: an upload that has started keeps its own",
        /// Use the chunk size that the upload started with, or a new video.
        SameChunkSize => "use the chunk size that the upload started with, or a new video",
        /// Use the mode that the upload started with, or a new video.
        SameMode => "continue in the mode that the upload started with, or use a new video",
        /// Send the file in chunks, not in one request.
        SendInChunks => "send the file in chunks: `Mode::Bytes` or `Mode::Parts`",
        /// Send the stream in parts: the requested mode needs the length.
        SendInParts => "send the stream in parts: `Mode::Parts`",
        /// Send fewer and larger chunks.
        FewerRequests => "wait a minute, or send fewer and larger chunks: every chunk is one request",
        /// Send less at once: smaller chunks over fewer connections.
        SendLessAtOnce =>
            "try again; on a slow line send less at once: a smaller chunk size, fewer lanes (`Settings::lanes`)",
        /// Lower the minimum speed, raise the bandwidth limit, or use fewer connections.
        LowerMinimumSpeed =>
            "lower the minimum speed, raise the limit (`Settings::bandwidth`), or use fewer lanes \
             (`Settings::lanes`)",
        /// Allow the service or the network more time.
        LongerTimeout =>
            "check the network and the endpoint's URL; if the service only needs longer, allow it a longer \
             timeout",
        /// Allow the disk more time.
        LongerReadTimeout =>
            "check the disk or the network file system that holds the file; if it only needs longer, allow it \
             a longer timeout",
        /// Trust the certificate of the service's authority.
        TrustCertificate =>
            "check the endpoint's URL and the clock; for a service of your own, trust its authority's \
             certificate (`Settings::trust`)",
        /// Check the proxy and its URL, or connect without it.
        CheckProxy => "check the proxy and its URL (`DialSettings::proxy`), or connect without it",
        /// Give the user name and the password for the proxy.
        ProxyCredentials =>
            "put the right user name and password into the URL of the proxy (`DialSettings::proxy`)",
        /// Retry later. The upload continues where it stopped.
        RetryLater =>
            "try again later; with a journal (`Settings::journal`) the same upload continues where it stopped",
        /// Check the video's status, and retry.
        CheckStatus => "check the video's status (`Client::video_status`), and try again",
        /// Upload the files of the directory, each by itself or in a bulk run.
        FilesOfDirectory => "name the files in it; `bulk::ingest` uploads whole directories",
        /// Create a new upload token.
        NewUploadToken => "create a new one with the API key (`Client::create_upload_token`)",
        /// List the upload tokens that have not expired.
        ListUploadTokens =>
            "check the token and the environment: `Client::upload_tokens` lists those that have not expired",
        /// Allow the chunks of streams more memory, or use smaller chunks.
        MoreStreamMemory => "raise `Settings::buffer_bytes` or use smaller chunks",
        /// Use a newer version, or another journal file.
        NewerVersion => "use a newer version of ringlift, or set `Settings::journal` to another file",
        /// Finish the journal's uploads with the older version, or use another journal file.
        OlderVersion => "finish its uploads with that version, or set `Settings::journal` to another file",
        /// Move the damaged journal away, and look for unfinished videos.
        ReplaceJournal => "move it away to begin a new one, and list the videos to find unfinished ones",
        /// Check the permissions of the journal, or use another file.
        JournalPermissions => "check its permissions, or set `Settings::journal` to another file",
        /// Make room for the journal, or use a file on another disk.
        RoomForJournal => "make room, or set `Settings::journal` to a file on another disk",
        /// Remove the lock file of another user, or use another journal file.
        RemoveLockFile =>
            "remove the lock file when no run of that user is under way, or set `Settings::journal` to another \
             file",
        /// Upload the names of one file one after the other: this process already sends it by another name.
        OneAfterTheOther => "upload the names of one file, such as hard links, one after the other",
        /// Start the upload again.
        StartAgain => "start the upload again",
        /// Use another journal file.
        OtherJournal => "set `Settings::journal` to another file",
        /// Use a journal file on another disk.
        JournalOnOtherDisk => "set `Settings::journal` to a file on another disk",
        /// Resume the moved file at its new path.
        MovedFile => "if the file was moved, resume it at its new path",
        /// Start a new upload of the file. The incomplete video can be deleted.
        NewUpload => "start a new upload of the file, and delete the incomplete video",
        /// Allow the service more time to process an uploaded file. Do not upload the file again.
        LongerWait =>
            "do not upload the file again: its status (`Client::video_status`) shows the progress; allow a \
             longer wait",
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

/// The advice for errors that the limits of the machine cause.
pub(crate) const RESOURCE_LIMITS_ADVICE: &str = "look at the limits of the process and the machine: open files \
    (`ulimit -n`), threads (`ulimit -u`) and memory";
