//! Creating a container once, though the answer may be lost.
//!
//! The service has no way to make the call repeatable, so every container carries a mark in its
//! metadata. When it is not known whether a container was created, the mark is looked for first.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::FusedFuture;
use tokio::sync::watch;

use crate::api::{Api, NewVideo, VideoQuery};
use crate::error::{Error, ErrorKind, Result};
use crate::upload::calls::{Repetition, persistently_telling};
use crate::upload::control::Control;
use crate::upload::happening::{Happening, Herald};
use crate::upload::job::Halt;
use crate::upload::pace::{Brake, Class};
use crate::upload::retry::{Fate, RetryPolicy};

/// The metadata key that holds the mark.
pub const MARK_KEY: &str = "ringlift-upload";

/// A container to be created.
#[derive(Clone, Debug)]
pub(super) struct Creation {
    pub(super) video: NewVideo,
    pub(super) mark: Mark,
}

/// What tells a container of ours from any other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// Drawn for this creation; no container has it.
    New(String),
    /// An earlier process drew it and may have created the container.
    Left(String),
}

impl Mark {
    pub(super) fn draw() -> Mark {
        Mark::New(format!("{:032x}", fastrand::u128(..)))
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Mark::New(mark) | Mark::Left(mark) => mark,
        }
    }
}

/// As [`create`], until the upload is to end: what is on its way is waited for, and nothing is tried again.
pub(super) async fn create_until_halted(
    api: &Api<Control>,
    policy: &RetryPolicy,
    creation: Creation,
    herald: &Herald,
    mut halted: watch::Receiver<Halt>,
) -> Result<String> {
    let pausing = Cell::new(false);
    let mut created = pin!(create(api, policy, creation, herald, &pausing));
    let mut is_halted = pin!(halted.wait_for(|halt| *halt != Halt::No).map(drop).fuse());
    poll_fn(|cx| {
        if let Poll::Ready(created) = created.as_mut().poll(cx) {
            return Poll::Ready(created);
        }
        let _ = is_halted.as_mut().poll(cx);
        match is_halted.is_terminated() && pausing.get() {
            true => Poll::Ready(Err(Error::new(ErrorKind::Cancelled, "create the video"))),
            false => Poll::Pending,
        }
    })
    .await
}

/// Creates the container, or finds the one that a lost answer was about, and gives its id.
/// `pausing` tells whether it waits to try again.
async fn create(
    api: &Api<Control>,
    policy: &RetryPolicy,
    creation: Creation,
    herald: &Herald,
    pausing: &Cell<bool>,
) -> Result<String> {
    let Creation { video, mark } = creation;
    let video = video.metadata(MARK_KEY, mark.text());
    let may_exist = Cell::new(matches!(mark, Mark::Left(_)));
    persistently_telling(
        policy,
        |repetition| {
            pausing.set(true);
            herald.tell(happening(repetition));
        },
        async || {
            pausing.set(false);
            if may_exist.get()
                && let Some(video_id) = find(api, mark.text()).await?
            {
                return Ok(video_id);
            }
            match api.videos(Instant::now()).create(&video).await {
                Ok(video) => Ok(video.video_id),
                Err(error) => match error.video_id() {
                    // An answer that could be read no further than its id will do.
                    Some(video_id) => Ok(video_id.to_owned()),
                    None => {
                        may_exist.set(may_exist.get() || leaves_doubt(&error));
                        Err(error)
                    }
                },
            }
        },
    )
    .await
}

fn happening(repetition: Repetition<'_>) -> Happening {
    let Repetition { error, attempt, delay } = repetition;
    if error.kind() == ErrorKind::RateLimited {
        return Happening::Throttled { class: Class::Writes, why: Brake::TooManyRequests, delay };
    }
    let fate = if leaves_doubt(error) { Fate::Unknown } else { Fate::NotStored };
    Happening::Retry { index: None, attempt, why: error.into(), delay, fate }
}

/// The video with this mark.
pub(super) async fn find(api: &Api<Control>, mark: &str) -> Result<Option<String>> {
    let mut query = VideoQuery::default();
    query.metadata.push((MARK_KEY.to_owned(), mark.to_owned()));
    let page = api.videos(Instant::now()).list(&query).await?;
    let is_ours = |metadata: &crate::api::Metadata| metadata.key == MARK_KEY && metadata.value == mark;
    // A service that ignores the filter would otherwise give us somebody else's video.
    let ours = page.data.into_iter().find(|video| video.metadata.iter().any(is_ours));
    Ok(ours.map(|video| video.video_id))
}

fn leaves_doubt(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Stalled | ErrorKind::MalformedAnswer)
}
