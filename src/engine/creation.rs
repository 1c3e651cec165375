//! Creation of a container exactly once, though the answer may be lost.
//!
//! The service has no idempotency key, so every container carries a mark in its metadata. If a lost answer leaves it
//! unknown whether a container exists, the mark is searched for first. Lists may lag: if no list has the mark,
//! another container is created with another mark, and the journal keeps the first mark for `clean`.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::FusedFuture;
use tokio::sync::watch;

use crate::api::{Api, NewVideo, ReceivedContent, SortOrder, Video, VideoQuery, VideoSort};
use crate::engine::calls::{Repetition, with_retries};
use crate::engine::control::Control;
use crate::engine::event_log::EventSink;
use crate::engine::journal_entry::{MarkEntry, MarkJournal};
use crate::engine::request::ContainerGate;
use crate::engine::request::StopRequest;
use crate::error::{Error, ErrorKind, Result};
use crate::pacing::{Class, ThrottleReason};
use crate::session::event::UploadEvent;
use crate::session::retry::{Fate, RetryPolicy};

/// The metadata key that holds the mark.
pub const MARK_KEY: &str = "ringlift-upload";

/// A container to create.
#[derive(Clone, Debug)]
pub(crate) struct Creation {
    pub(crate) video: NewVideo,
    pub(crate) mark: Mark,
    /// The journal's entries for marks of containers that no upload may fill.
    pub(crate) marks: MarkJournal,
    /// The question before the container is used, if there is one.
    pub(crate) gate: Option<ContainerGate>,
}

/// A mark that distinguishes a container of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A mark drawn for this creation; no container has it yet.
    New(String),
    /// A mark of an earlier process, which may have created the container.
    Left(String),
    /// A mark that other hosts use for the same job. It is searched for before every creation, and is never replaced:
    /// the next host has to find the container by it.
    OfJob {
        mark: String,
        /// `true` if another host may have created the container moments ago.
        may_exist: bool,
        /// The container that the other hosts know, if they have agreed on one.
        container: Option<String>,
    },
}

impl Mark {
    pub(crate) fn draw() -> Mark {
        // 128 random bits, so that hosts without contact draw different marks.
        Mark::New(format!("{:032x}", fastrand::u128(..)))
    }

    pub(crate) fn text(&self) -> &str {
        match self {
            Mark::New(mark) | Mark::Left(mark) | Mark::OfJob { mark, .. } => mark,
        }
    }

    /// Returns the container that the hosts of a job have agreed on.
    fn container(&self) -> Option<&str> {
        match self {
            Mark::OfJob { container, .. } => container.as_deref(),
            Mark::New(_) | Mark::Left(_) => None,
        }
    }
}

/// The mark of the next attempt, and the journal entries of earlier marks.
struct Attempts {
    mark: String,
    /// The container to prefer if several have the mark.
    container: Option<String>,
    /// The likelihood that a container with this mark exists.
    existence: Existence,
    /// `true` if another mark may take the place of this one.
    is_own: bool,
    /// The number of abandoned marks.
    given_up: usize,
    /// The journal entry of a mark other than the one in the upload's own entry.
    row: Option<MarkEntry>,
    /// The journal entry of the first mark, once another mark is in use.
    first: Option<MarkEntry>,
}

/// The likelihood that a container exists after its creation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Existence {
    /// Every request was refused, or never arrived.
    Excluded,
    /// The service answered 503.
    Unlikely,
    /// An answer was lost, or came from a gateway.
    Possible,
}

impl Existence {
    fn after(error: &Error) -> Existence {
        match error.refusal().map(|refusal| refusal.status) {
            _ if !leaves_doubt(error) => Existence::Excluded,
            // A server that is unable to handle the request (RFC 9110, section 15.6.4) has not carried it out, as a rule.
            Some(503) => Existence::Unlikely,
            _ => Existence::Possible,
        }
    }
}

impl Attempts {
    /// Returns `true` if a container with one of the marks may exist.
    fn is_doubtful(&self) -> bool {
        self.existence != Existence::Excluded || self.given_up > 0
    }

    /// Returns `true` if the next container gets a new mark. Each mark costs a journal entry, and an outage must not
    /// fill the journal.
    fn may_give_up_mark(&self) -> bool {
        self.is_own && self.existence == Existence::Possible && self.given_up < MAX_GIVEN_UP
    }

    /// Leaves the mark to `clean` and draws another one, which the journal has before its container exists.
    fn give_up_mark(&mut self, marks: &MarkJournal) -> Result<()> {
        let fresh = Mark::draw().text().to_owned();
        let row = marks.record(&fresh)?;
        if self.row.take().is_none() {
            // The upload's own entry will name the other container.
            self.first = marks.record(&self.mark)?;
        }
        tracing::warn!(
            "a video may have been created whose answer was lost, and no list has it: creating another"
        );
        (self.mark, self.row, self.existence) = (fresh, row, Existence::Excluded);
        self.given_up += 1;
        Ok(())
    }
}

/// A container that exists.
#[derive(Debug)]
pub(crate) struct Created {
    pub(crate) video_id: String,
    /// `true` if a search found the container: another host may have sent chunks to it.
    pub(crate) was_found: bool,
    /// The journal entry of the container's mark, kept until the upload's own entry names the container.
    pub(crate) mark_entry: Option<Box<MarkEntry>>,
}

/// A failure to create a container.
#[derive(Debug)]
pub(crate) struct CreationFailure {
    pub(crate) error: Error,
    /// `true` if the container may exist: an answer was lost.
    pub(crate) may_exist: bool,
}

/// Creates the container like [`create`], but stops retrying once the upload is to end. A request under way is
/// awaited.
pub(crate) async fn create_until_halted(
    api: &Api<Control>,
    policy: &RetryPolicy,
    creation: Creation,
    event_sink: &EventSink,
    mut halted: watch::Receiver<StopRequest>,
) -> Result<Created, CreationFailure> {
    // A mark that an earlier process or another host used may be that of a container.
    let (pausing, may_exist) = (Cell::new(false), Cell::new(!matches!(creation.mark, Mark::New(_))));
    // The container, while the question about it is not answered.
    let (gate, asked) = (creation.gate.clone(), RefCell::new(None));
    let mut created = pin!(async {
        let created = create(api, policy, creation, event_sink, (&pausing, &may_exist)).await?;
        let Some(gate) = gate else { return Ok(created) };
        // From here on the container exists: a stop request names it in place of waiting for the answer.
        asked.replace(Some(created.video_id.clone()));
        pausing.set(true);
        may_exist.set(true);
        if gate.ask(&created.video_id).await { Ok(created) } else { Err(stopped(&asked)) }
    });
    let mut is_halted = pin!(halted.wait_for(|halt| *halt != StopRequest::No).map(drop).fuse());
    poll_fn(|cx| {
        if let Poll::Ready(created) = created.as_mut().poll(cx) {
            return Poll::Ready(
                created.map_err(|error| CreationFailure { error, may_exist: may_exist.get() }),
            );
        }
        // Polled each time, so that a stop request wakes this future.
        let _ = is_halted.as_mut().poll(cx);
        // A request under way is awaited: its answer names a container that would otherwise be lost.
        if is_halted.is_terminated() && pausing.get() {
            Poll::Ready(Err(CreationFailure { error: stopped(&asked), may_exist: may_exist.get() }))
        } else {
            Poll::Pending
        }
    })
    .await
}

/// Returns the error of a creation that is to end. Names the container if there is one.
fn stopped(container: &RefCell<Option<String>>) -> Error {
    let error = Error::new(ErrorKind::Cancelled, "create the video");
    container.borrow().iter().fold(error, |error, video_id| error.with_video_id(video_id.as_str()))
}

/// Creates the container, or finds the one whose answer was lost. Sets `pausing` between attempts and while the pacer
/// holds a request, and `may_exist` after an attempt whose answer was lost.
async fn create(
    api: &Api<Control>,
    policy: &RetryPolicy,
    creation: Creation,
    event_sink: &EventSink,
    (pausing, may_exist): (&Cell<bool>, &Cell<bool>),
) -> Result<Created> {
    let Creation { video, mark, marks, .. } = creation;
    let existence = match &mark {
        Mark::New(_) => Existence::Excluded,
        Mark::OfJob { may_exist: false, .. } => Existence::Unlikely,
        Mark::Left(_) | Mark::OfJob { may_exist: true, .. } => Existence::Possible,
    };
    let is_own = !matches!(mark, Mark::OfJob { .. });
    let (mark, container) = (mark.text().to_owned(), mark.container().map(str::to_owned));
    let attempts = Attempts { mark, container, existence, is_own, given_up: 0, row: None, first: None };
    let attempts = RefCell::new(attempts);
    let created = with_retries(
        policy,
        |repetition| {
            pausing.set(true);
            event_sink.emit(event(repetition));
        },
        async || {
            // While the pacer holds the request, nothing is sent: a stop request ends the wait.
            pausing.set(true);
            api.exchange().turn(Class::Writes).await;
            pausing.set(false);
            let created = attempt(api, policy, &video, &marks, &attempts).await;
            may_exist.set(attempts.borrow().is_doubtful());
            created
        },
    )
    .await;
    let Attempts { row, first, existence, .. } = attempts.into_inner();
    match created {
        Ok((video_id, was_found)) => Ok(Created { video_id, was_found, mark_entry: row.map(Box::new) }),
        Err(error) => {
            // Only a mark that no container can have is removed; the others stay for `clean`.
            let row = row.filter(|_| existence == Existence::Excluded);
            // The upload's own entry still has the first mark.
            first.into_iter().chain(row).for_each(MarkEntry::resolved);
            Err(error)
        }
    }
}

/// Returns the container, and `true` if it was found rather than created.
async fn attempt(
    api: &Api<Control>,
    policy: &RetryPolicy,
    video: &NewVideo,
    marks: &MarkJournal,
    attempts: &RefCell<Attempts>,
) -> Result<(String, bool)> {
    let (mark, container, existence) = {
        let attempts = attempts.borrow();
        (attempts.mark.clone(), attempts.container.clone(), attempts.existence)
    };
    let container = container.as_deref();
    let found = match existence {
        Existence::Excluded => None,
        // The service refused the request: a container is unlikely, so one search is enough.
        Existence::Unlikely => find(api, &mark, container).await?,
        Existence::Possible => find_lagging(api, &mark, container, policy).await?,
    };
    if let Some(video_id) = found {
        return Ok((video_id, true));
    }
    if attempts.borrow().may_give_up_mark() {
        attempts.borrow_mut().give_up_mark(marks)?;
    }
    let mark = attempts.borrow().mark.clone();
    let created = create_marked(api, video, &mark).await.inspect_err(|error| {
        let mut attempts = attempts.borrow_mut();
        // A refusal now does not exclude a container of an earlier, unanswered request.
        attempts.existence = attempts.existence.max(Existence::after(error));
    })?;
    Ok((created, false))
}

fn event(repetition: Repetition<'_>) -> UploadEvent {
    let Repetition { error, attempt, delay } = repetition;
    if error.kind() == ErrorKind::RateLimited {
        return UploadEvent::Throttled { class: Class::Writes, why: ThrottleReason::TooManyRequests, delay };
    }
    let fate = if leaves_doubt(error) { Fate::Unknown } else { Fate::NotStored };
    UploadEvent::Retry { index: None, attempt, why: error.into(), delay, fate }
}

/// Returns the video with this mark. Searches twice with a pause, since lists may lag.
async fn find_lagging(
    api: &Api<Control>,
    mark: &str,
    preferred: Option<&str>,
    policy: &RetryPolicy,
) -> Result<Option<String>> {
    if let Some(video_id) = find(api, mark, preferred).await? {
        return Ok(Some(video_id));
    }
    tokio::time::sleep(policy.grace).await;
    find(api, mark, preferred).await
}

/// Returns the video with this mark. A request that arrived twice, or two hosts at the same time, leave several videos:
/// a complete one is preferred, then the one that the hosts have agreed on, else the oldest.
pub(crate) async fn find(api: &Api<Control>, mark: &str, preferred: Option<&str>) -> Result<Option<String>> {
    let mut marked = marked(api, mark).await?;
    if marked.len() > 1 {
        let ids: Vec<&str> = marked.iter().map(|video| video.video_id.as_str()).collect();
        tracing::warn!("several videos were created for one upload: {}", ids.join(", "));
        for video in marked.iter().take(MAX_ASKED) {
            let status = api.videos(Instant::now()).status(&video.video_id).await?;
            if status.received() == ReceivedContent::Everything {
                return Ok(Some(video.video_id.clone()));
            }
        }
        // Another host may be about to delete the others.
        if let Some(preferred) = preferred.filter(|preferred| ids.contains(preferred)) {
            return Ok(Some(preferred.to_owned()));
        }
    }
    // Sorted newest first. The later ones are the duplicates.
    Ok(marked.pop().map(|oldest| oldest.video_id))
}

/// Returns the videos with this mark, the newest first. A service that ignores the filter returns pages of other
/// videos.
pub(crate) async fn marked(api: &Api<Control>, mark: &str) -> Result<Vec<Video>> {
    let mut query = VideoQuery::default();
    query.metadata.push((MARK_KEY.to_owned(), mark.to_owned()));
    // The newest first: the video was created moments ago.
    (query.sort_by, query.sort_order) = (Some(VideoSort::CreatedAt), Some(SortOrder::Desc));
    for _ in 0..MAX_PAGES {
        let page = api.videos(Instant::now()).list(&query).await?;
        let next = page.next_page();
        let ours = page.data.into_iter().filter(|video| video.has_metadata(MARK_KEY, mark));
        let mut ours: Vec<Video> = ours.collect();
        if !ours.is_empty() || next.is_none() {
            // A service that ignores the filter may ignore the order too.
            ours.sort_by(|a, b| b.created_at.cmp(&a.created_at));
            return Ok(ours);
        }
        query.current_page = next;
    }
    Ok(Vec::new())
}

/// Creates the container with a mark that the caller has recorded, or finds the one whose answer was lost.
///
/// `may_exist` is `true` if an earlier request may have created the container; it is set after such a request. A search
/// precedes each further request then: the service has no idempotency key.
#[cfg(feature = "bulk")]
pub(crate) async fn create_or_find(
    api: &Api<Control>,
    video: &NewVideo,
    mark: &str,
    may_exist: &Cell<bool>,
    policy: &RetryPolicy,
) -> Result<String> {
    if may_exist.get()
        && let Some(video_id) = find_lagging(api, mark, None, policy).await?
    {
        return Ok(video_id);
    }
    let created = create_marked(api, video, mark).await;
    created.inspect_err(|error| may_exist.set(may_exist.get() || leaves_doubt(error)))
}

/// Creates a container with this mark. Returns the id of its video.
async fn create_marked(api: &Api<Control>, video: &NewVideo, mark: &str) -> Result<String> {
    let video = video.clone().metadata(MARK_KEY, mark);
    let created = api.videos(Instant::now()).create(&video).await;
    created.map(|video| video.video_id)
}

fn leaves_doubt(error: &Error) -> bool {
    // Without `Connect`: a request that had no connection has created nothing.
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Stalled | ErrorKind::MalformedAnswer)
}

/// The marks of one creation that are kept for `clean`; later attempts share one.
const MAX_GIVEN_UP: usize = 3;

/// The pages of other videos that are searched; our video is among the newest.
const MAX_PAGES: usize = 10;

/// The videos with one mark whose status is requested.
const MAX_ASKED: usize = 10;
