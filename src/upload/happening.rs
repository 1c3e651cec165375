//! What happens to an upload on its way, one thing at a time: for programs and for the log.
//!
//! Whoever follows reads from a queue of [`QUEUE`] entries. Nothing waits for a slow reader: it loses
//! the oldest and is told how many.

use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_core::Stream;
use tokio::sync::broadcast::{self, error::RecvError};

use crate::error::{Error, ErrorKind};
use crate::source::Change;
use crate::upload::pace::{Brake, Class, Held};
use crate::upload::retry::Fate;

/// Something that happened to an upload. None of it holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Happening {
    /// An earlier run's upload is taken up; what the service has of it is not sent again.
    Resumed {
        /// The container.
        video_id: String,
        /// Chunks that are there.
        chunks: u32,
        /// File bytes in them.
        bytes: u64,
    },
    /// The service has a chunk: it answered so, or showed it when it was asked.
    ChunkDone {
        /// Which one, counted from 0.
        index: u32,
        /// Its file bytes.
        bytes: u64,
        /// The attempt that brought it there, counted from 1.
        attempt: u32,
        /// From that attempt's start until it was known.
        elapsed: Duration,
    },
    /// An attempt failed, and is made again.
    Retry {
        /// The chunk, counted from 0; `None` for the creation of the video.
        index: Option<u32>,
        /// The attempt that failed, counted from 1.
        attempt: u32,
        /// Why.
        why: Why,
        /// Until the next one.
        delay: Duration,
        /// What was known of the chunk when the attempt failed.
        fate: Fate,
    },
    /// Requests of a class wait for longer than their turn.
    Throttled {
        /// Which requests.
        class: Class,
        /// What holds them back.
        why: Brake,
        /// For how long.
        delay: Duration,
    },
    /// The service is asked what it holds.
    StatusAsked {
        /// The container.
        video_id: String,
        /// What for.
        reason: Inquiry,
    },
    /// The file's attributes, links or name changed while it is being sent. Its bytes did not, as far as the kernel
    /// reports, and the upload goes on. At most once an upload.
    SourceTouched {
        /// The change that was found first.
        change: Change,
    },
    /// The file's times cannot tell whether it changed since an earlier run sent chunks of it. These chunks were
    /// compared with the file by their digests, and all of them are equal.
    Proved {
        /// The container.
        video_id: String,
        /// Chunks that were compared.
        chunks: u32,
        /// File bytes in them.
        bytes: u64,
    },
    /// The upload begins anew, with a video of its own: the file is not, or may not be, the one of which chunks were
    /// sent.
    BeginsAnew {
        /// The container that was being filled. With [`OnChange::Restart`](crate::OnChange::Restart) it is deleted,
        /// otherwise it is left as it is.
        video_id: Option<String>,
        /// Why, in words.
        why: String,
    },
    /// With an upload token alone: the first chunk may have made a video that no answer named. It cannot be
    /// found without the API key, is titled like the file, and the upload makes another one.
    StrayVideo,
    /// The reader was slow: this many happenings are lost to it, the oldest ones.
    Missed {
        /// How many.
        count: u64,
    },
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Why {
    /// The kind of failure.
    pub kind: ErrorKind,
    /// The service's name for the problem, when it refused.
    pub slug: Option<String>,
    /// In words, with the causes.
    pub message: String,
}

impl Why {
    /// The service's name for the problem, or that of the kind.
    pub fn name(&self) -> &str {
        self.slug.as_deref().unwrap_or(self.kind.name())
    }
}

impl From<&Error> for Why {
    fn from(error: &Error) -> Why {
        let mut message = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if !message.ends_with(&text) {
                message += &format!(": {text}");
            }
            next = cause.source();
        }
        let slug = error.refusal().and_then(|refusal| refusal.slug.clone());
        Why { kind: error.kind(), slug, message }
    }
}

/// What the service is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inquiry {
    /// An earlier run's upload is taken up.
    Resume,
    /// The answer to a chunk was lost.
    LostAnswer,
    /// Every chunk was acknowledged, and no answer said that the file is complete.
    Completion,
}

impl Inquiry {
    /// A stable name, for logs and machine-readable output: `lost_answer`.
    pub fn name(self) -> &'static str {
        match self {
            Inquiry::Resume => "resume",
            Inquiry::LostAnswer => "lost_answer",
            Inquiry::Completion => "completion",
        }
    }
}

/// What happens to an upload, as it happens. Ends with the upload.
#[derive(Debug)]
pub struct Happenings {
    next: Pin<Box<Next>>,
}

impl Happenings {
    pub(super) fn new(receiver: broadcast::Receiver<Happening>) -> Happenings {
        Happenings { next: Box::pin(Next(next(receiver))) }
    }
}

impl Stream for Happenings {
    type Item = Happening;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Happening>> {
        let Poll::Ready((receiver, happening)) = self.next.0.as_mut().poll(cx) else {
            return Poll::Pending;
        };
        self.next.0 = next(receiver);
        Poll::Ready(happening)
    }
}

type Receiving =
    Pin<Box<dyn Future<Output = (broadcast::Receiver<Happening>, Option<Happening>)> + Send + Sync>>;

struct Next(Receiving);

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Next")
    }
}

fn next(mut receiver: broadcast::Receiver<Happening>) -> Receiving {
    Box::pin(async move {
        let happening = match receiver.recv().await {
            Ok(happening) => Some(happening),
            Err(RecvError::Lagged(count)) => Some(Happening::Missed { count }),
            Err(RecvError::Closed) => None,
        };
        (receiver, happening)
    })
}

/// The way to whoever follows an upload.
pub(super) type Followers = broadcast::Sender<Happening>;

/// The queue between an upload and whoever follows it.
pub(super) fn queue() -> (Followers, broadcast::Receiver<Happening>) {
    broadcast::channel(QUEUE)
}

/// Tells the log, and whoever follows the upload of one file, what happens to it.
#[derive(Clone, Debug)]
pub(super) struct Herald {
    file: Arc<str>,
    followers: Followers,
}

impl Herald {
    pub(super) fn new(file: Arc<str>, followers: Followers) -> Herald {
        Herald { file, followers }
    }

    /// Says it in the log, once, and to the followers.
    pub(super) fn tell(&self, happening: Happening) {
        self.log(&happening);
        self.tell_followers(happening);
    }

    /// For what the log has heard already. Without followers there is nobody to tell.
    pub(super) fn tell_followers(&self, happening: Happening) {
        let _ = self.followers.send(happening);
    }

    pub(super) fn into_followers(self) -> Followers {
        self.followers
    }

    fn log(&self, happening: &Happening) {
        let file = &self.file;
        match happening {
            Happening::Resumed { video_id, chunks, bytes } => {
                tracing::info!(
                    "{file}: taking up an earlier upload: video {video_id} has {chunks} chunks, {bytes} bytes"
                );
            }
            Happening::ChunkDone { index, bytes, attempt, elapsed } => {
                tracing::debug!(bytes, attempt, ?elapsed, "{file}: chunk {} is there", index + 1);
            }
            Happening::Retry { index, why, delay, fate, .. } => log_retry(file, *index, why, *delay, *fate),
            Happening::Throttled { class, why, delay } => log_throttle(*class, *why, *delay),
            Happening::StatusAsked { video_id, reason } => {
                tracing::info!("{file}: asking what the service has of video {video_id}: {reason}");
            }
            Happening::SourceTouched { change } => {
                tracing::warn!(
                    "{file}: {change} while it is being sent: the upload goes on, no byte changed"
                );
            }
            Happening::Proved { chunks, .. } => tracing::warn!(
                "{file}: its times cannot tell whether it changed since an earlier run sent {chunks} chunks: they \
                 were compared with the file by their digests and are equal"
            ),
            Happening::BeginsAnew { why, .. } => tracing::warn!("{file}: beginning anew: {why}"),
            Happening::StrayVideo => tracing::warn!("{file}: {STRAY_VIDEO}"),
            Happening::Missed { .. } => {}
        }
    }
}

/// Which wait was told of, so that each is told of once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told(Option<Held>);

impl Told {
    /// Whether nobody was told of it. What the user set is no news, nor is that somebody else tries.
    pub(super) fn is_news(&mut self, held: Held, now: Instant) -> bool {
        let is_told = self.0.is_some_and(|told| told.by == held.by && told.until > now);
        let is_news = !is_told && !matches!(held.by, Brake::Caps | Brake::Probe);
        if is_news {
            self.0 = Some(held);
        }
        is_news
    }
}

/// Credentials that expire are the order of things; anything else that fails is worth a word.
fn log_retry(file: &str, index: Option<u32>, why: &Why, delay: Duration, fate: Fate) {
    let what = index.map_or_else(|| "its video".to_owned(), |index| format!("chunk {}", index + 1));
    let open = match fate {
        Fate::Unknown => ", though the service may have it",
        Fate::NotStored => "",
    };
    let Why { kind, message, .. } = why;
    match kind {
        ErrorKind::NotAuthorized => tracing::info!("{file}: {what} again with new credentials: {message}"),
        _ => tracing::warn!("{file}: {what} again in {}{open}: {message}", Rounded(delay)),
    }
}

/// The budget is there to be used up; the rest is trouble.
pub(super) fn log_throttle(class: Class, why: Brake, delay: Duration) {
    let (class, delay) = (class.name(), Rounded(delay));
    match why {
        Brake::TooManyRequests | Brake::Failures => tracing::warn!("{class} wait for {delay}: {why}"),
        _ => tracing::info!("{class} wait for {delay}: {why}"),
    }
}

impl fmt::Display for Inquiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Inquiry::Resume => "an earlier run began it",
            Inquiry::LostAnswer => "the answer to a chunk was lost",
            Inquiry::Completion => "no answer said that the file is complete",
        })
    }
}

/// `1.2s`: nobody reads nanoseconds.
pub(super) struct Rounded(pub(super) Duration);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.0.as_secs_f64())
    }
}

/// What [`Happening::StrayVideo`] means and what to do about it.
pub const STRAY_VIDEO: &str = "the answer to the first chunk was lost: the service may have made a video from it \
    that nothing names; whoever has the API key finds it by its title, the file's name, and can delete what is \
    not complete";

/// Happenings that wait for a reader of one upload; beyond that, the oldest are lost.
pub const QUEUE: usize = 128;

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    fn done(index: u32) -> Happening {
        Happening::ChunkDone { index, bytes: 1, attempt: 1, elapsed: Duration::ZERO }
    }

    #[tokio::test]
    async fn who_reads_slowly_loses_the_oldest_and_hears_how_many() {
        let (followers, receiver) = queue();
        let herald = Herald::new("movie.mp4".into(), followers);
        let all = QUEUE as u32 + 3;
        (0..all).for_each(|index| herald.tell(done(index)));
        drop(herald);
        let heard: Vec<_> = Happenings::new(receiver).collect().await;
        assert_eq!(heard[0], Happening::Missed { count: 3 });
        assert_eq!(heard[1..], (3..all).map(done).collect::<Vec<_>>());
    }

    #[test]
    fn each_wait_is_told_of_once_and_the_users_own_limits_are_no_news() {
        let now = Instant::now();
        let held = |seconds, by| Held { until: now + Duration::from_secs(seconds), by };
        let mut told = Told::default();
        assert!(told.is_news(held(5, Brake::Budget), now));
        assert!(!told.is_news(held(6, Brake::Budget), now + Duration::from_secs(1)));
        assert!(!told.is_news(held(9, Brake::Caps), now));
        assert!(told.is_news(held(5, Brake::TooManyRequests), now));
        assert!(told.is_news(held(60, Brake::TooManyRequests), now + Duration::from_secs(6)));
    }

    #[test]
    fn why_names_the_slug_and_every_cause() {
        let inner = std::io::Error::other("reset by peer");
        let error = Error::new(ErrorKind::Unavailable, "send chunk 1").with_source(inner);
        let why = Why::from(&error);
        assert_eq!(why.name(), "unavailable");
        assert!(why.message.ends_with("as it should: reset by peer"), "{}", why.message);
    }

    #[test]
    fn the_stream_crosses_threads() {
        fn crosses<T: Send + Sync + 'static>() {}
        crosses::<Happenings>();
    }
}
