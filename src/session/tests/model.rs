//! A tiny model of the service: containers that keep chunks, and the mishaps on the way to them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::*;
use crate::error::Refusal;

/// What happens to an attempt at a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mishap {
    /// The connection breaks before the request is whole.
    Layout,
    /// The request arrives whole and is kept, and its answer is lost.
    AnswerLost,
    /// As before, and the status shows the chunk only after so many seconds.
    AnswerLostAndShownAfter(u64),
    /// It is kept and acknowledged, and the status shows the chunk only after so many seconds.
    ShownAfter(u64),
    /// The request looks whole to us and never arrives.
    RequestLost,
    /// As before, but it does arrive, after so many seconds.
    ArrivesAfter(u64),
    /// Too many requests; the service may say for how many seconds.
    Throttled(Option<u64>),
    /// The credentials expire just before it, for everything until they are renewed.
    Expired,
    /// The service gives up on it after it arrived whole.
    Fails,
    /// A gateway answers with a page of its own, and the service never sees the request.
    Intercepted,
    /// As before, after the service stored the chunk.
    InterceptedAfterStoring,
    /// A proxy delivers the request twice, and passes on the answer to the second copy.
    DeliveredTwice,
    /// The replica that answers does not know the video yet.
    VideoUnknown,
    /// The service is away, and says for how many seconds.
    Away(u64),
}

/// What happens to a question for the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StatusMishap {
    /// It is answered.
    None,
    /// The service fails.
    Fails,
    /// Too many requests.
    Throttled,
    /// The credentials expire just before it.
    Expired,
    /// A gateway answers with a page of its own.
    Intercepted,
    /// The replica that answers does not know the video yet.
    VideoUnknown,
}

/// What the service's answer to a chunk says of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// Nothing.
    Nothing,
    /// When the set is complete.
    TheTruth,
    /// With every chunk that it is complete.
    Nonsense,
    /// The same, and each chunk replaces what was there: the service ignores `Content-Range`.
    NonsenseAndOverwrites,
}

/// The service.
#[derive(Debug)]
pub(super) struct Service {
    cut: Layout,
    says: Says,
    assembly: Duration,
    pub(super) containers: Vec<Container>,
    pub(super) expired: bool,
    late: Vec<(Instant, usize, ChunkToSend)>,
}

/// One video.
#[derive(Debug, Default)]
pub(super) struct Container {
    /// By index: the bytes, and when the status shows them.
    stored: BTreeMap<u32, (Extent, Instant)>,
    /// Number of chunks; `None` until a request carried it.
    total: Option<u32>,
    complete_since: Option<Instant>,
}

impl Service {
    pub(super) fn new(cut: Layout, says: Says, assembly: Duration) -> Service {
        Service { cut, says, assembly, containers: Vec::new(), expired: false, late: Vec::new() }
    }

    pub(super) fn create(&mut self) -> String {
        self.containers.push(Container::default());
        format!("vi{}", self.containers.len() - 1)
    }

    fn container(&mut self, video_id: Option<&str>) -> usize {
        let id = video_id.map_or_else(|| self.create(), str::to_owned);
        id[2..].parse().unwrap()
    }

    /// What one attempt comes to, for the service and for us.
    pub(super) fn attempt(
        &mut self,
        dispatch: &ChunkToSend,
        mishap: Option<Mishap>,
        now: Instant,
    ) -> Outcome {
        self.mark_stored(now);
        if mishap == Some(Mishap::Expired) {
            self.expired = true;
        }
        if self.expired {
            return not_stored(Error::new(ErrorKind::NotAuthorized, "send a chunk"));
        }
        let lost = |kind| Outcome::Failed { error: Error::new(kind, "send a chunk"), fate: Fate::Unknown };
        match mishap {
            None => self.store(dispatch, now, now),
            Some(Mishap::Layout) => not_stored(Error::new(ErrorKind::Connect, "send a chunk")),
            Some(Mishap::AnswerLost) => {
                let _ = self.store(dispatch, now, now);
                lost(ErrorKind::Unavailable)
            }
            Some(Mishap::AnswerLostAndShownAfter(seconds)) => {
                let _ = self.store(dispatch, now, now + Duration::from_secs(seconds));
                lost(ErrorKind::MalformedAnswer)
            }
            Some(Mishap::ShownAfter(seconds)) => {
                self.store(dispatch, now, now + Duration::from_secs(seconds))
            }
            Some(Mishap::RequestLost) => lost(ErrorKind::Stalled),
            Some(Mishap::ArrivesAfter(seconds)) => {
                let at = self.container(dispatch.video_id.as_deref());
                self.late.push((now + Duration::from_secs(seconds), at, dispatch.clone()));
                lost(ErrorKind::Stalled)
            }
            Some(Mishap::Throttled(seconds)) => {
                let error = Error::new(ErrorKind::RateLimited, "send a chunk");
                not_stored(match seconds {
                    Some(seconds) => error.with_retry_after(Duration::from_secs(seconds)),
                    None => error,
                })
            }
            Some(Mishap::Expired) => unreachable!("answered above"),
            Some(Mishap::Fails) => lost(ErrorKind::Unavailable),
            Some(Mishap::Intercepted) => not_stored(page("send a chunk")),
            Some(Mishap::InterceptedAfterStoring) => {
                let _ = self.store(dispatch, now, now);
                not_stored(page("send a chunk"))
            }
            Some(Mishap::DeliveredTwice) => {
                let _ = self.store(dispatch, now, now);
                self.store(dispatch, now, now)
            }
            Some(Mishap::VideoUnknown) => refused(ErrorKind::NotFound, "resource-not-found"),
            Some(Mishap::Away(seconds)) => {
                let error = Error::new(ErrorKind::Unavailable, "send a chunk");
                not_stored(error.with_retry_after(Duration::from_secs(seconds)))
            }
        }
    }

    /// Requests that were under way for long arrive.
    fn mark_stored(&mut self, now: Instant) {
        while let Some(due) = self.late.iter().position(|&(at, ..)| at <= now) {
            let (at, container, mut dispatch) = self.late.swap_remove(due);
            dispatch.video_id = Some(format!("vi{container}"));
            let _ = self.store(&dispatch, at, at);
        }
    }

    /// The rules of a container.
    fn store(&mut self, dispatch: &ChunkToSend, now: Instant, seen_in_status: Instant) -> Outcome {
        let at = self.container(dispatch.video_id.as_deref());
        let container = &mut self.containers[at];
        let (index, total) = named(dispatch);
        if self.says == Says::NonsenseAndOverwrites {
            container.stored = BTreeMap::from([(index, (dispatch.chunk.extent, seen_in_status))]);
            container.complete_since = Some(now);
            return Outcome::Accepted { video_id: format!("vi{at}"), completion: Completion::Complete };
        }
        if container.complete_since.is_some() {
            return refused(ErrorKind::AlreadyFilled, "video-source-already-uploaded");
        }
        if container.stored.contains_key(&index) {
            return refused(
                ErrorKind::AlreadySent,
                match dispatch.content_range {
                    Some(ContentRange::Bytes { .. }) => "video-content-range-by-bytes-range-overlap",
                    _ => "video-content-range-by-part-part-already-sent",
                },
            );
        }
        container.stored.insert(index, (dispatch.chunk.extent, seen_in_status));
        container.total = match self.cut {
            Layout::Planned(plan) | Layout::PlannedStream(plan) => Some(plan.chunks()),
            Layout::Stream(_) => container.total.or(total),
        };
        if container.total == Some(container.stored.len() as u32) {
            container.complete_since = Some(now.max(seen_in_status));
        }
        let completion = match self.says {
            Says::TheTruth if container.complete_since.is_some() => Completion::Complete,
            Says::Nonsense | Says::NonsenseAndOverwrites => Completion::Complete,
            Says::Nothing | Says::TheTruth => Completion::Open,
        };
        Outcome::Accepted { video_id: format!("vi{at}"), completion }
    }

    pub(super) fn status(
        &mut self,
        video_id: &str,
        mishap: StatusMishap,
        now: Instant,
    ) -> Result<ReceivedSet, Error> {
        self.mark_stored(now);
        let doing = "ask for the status";
        match mishap {
            StatusMishap::Fails => return Err(Error::new(ErrorKind::Unavailable, doing)),
            StatusMishap::Throttled => return Err(Error::new(ErrorKind::RateLimited, doing)),
            StatusMishap::Intercepted => return Err(page(doing)),
            StatusMishap::VideoUnknown => return Err(Error::new(ErrorKind::NotFound, doing)),
            StatusMishap::Expired => self.expired = true,
            StatusMishap::None => {}
        }
        if self.expired {
            return Err(Error::new(ErrorKind::NotAuthorized, doing));
        }
        let at = self.container(Some(video_id));
        let container = &self.containers[at];
        let seen_in_status =
            container.stored.iter().filter(|(_, (_, seen_in_status))| *seen_in_status <= now);
        let complete = container.complete_since.is_some_and(|since| since + self.assembly <= now);
        let mut received = ReceivedSet { complete, ..ReceivedSet::default() };
        let addressing = match self.cut {
            Layout::Planned(plan) | Layout::PlannedStream(plan) => plan.addressing(),
            Layout::Stream(plan) => plan.addressing(),
        };
        match addressing {
            Addressing::Single => {}
            Addressing::ByteRange => {
                received.extents = seen_in_status.map(|(_, &(extent, _))| extent).collect();
            }
            Addressing::Part => received.parts = seen_in_status.map(|(index, _)| index + 1).collect(),
        }
        received.file_bytes = complete.then(|| container.bytes());
        Ok(received)
    }

    /// The service forgets a chunk of an unfinished file, whatever it said before.
    pub(super) fn lose(&mut self, index: u32) {
        if let Some(container) = self.containers.last_mut()
            && container.complete_since.is_none()
        {
            container.stored.remove(&index);
        }
    }

    /// Another host that resumes the same file has sent a chunk.
    pub(super) fn take_from_elsewhere(&mut self, dispatch: &ChunkToSend, now: Instant) {
        let _ = self.store(dispatch, now, now);
    }
}

impl Container {
    fn bytes(&self) -> u64 {
        self.stored.values().map(|(extent, _)| extent.len()).sum()
    }

    /// Whether the chunks, in their order, are the `len` bytes of the file, once each.
    pub(super) fn is_complete(&self, len: u64) -> bool {
        let mut end = 0;
        let in_order = self.stored.values().all(|(extent, _)| {
            let follows = extent.offset() == end;
            end = extent.end();
            follows
        });
        in_order && end == len && self.complete_since.is_some()
    }
}

/// The chunk by what the header says, not by what the session calls it.
fn named(dispatch: &ChunkToSend) -> (u32, Option<u32>) {
    match dispatch.content_range {
        None => (0, Some(1)),
        Some(ContentRange::Part { number, total }) => (number - 1, total),
        Some(ContentRange::Bytes { extent, total }) => {
            assert_eq!(extent, dispatch.chunk.extent);
            // The chunks of streams have this length here; other plans are known to the model.
            (dispatch.chunk.index, total.map(|total| total.div_ceil(MIN_CHUNK_BYTES) as u32))
        }
    }
}

/// What a gateway answers in the service's place.
fn page(doing: &str) -> Error {
    Error::new(ErrorKind::Refused, doing).with_refusal(Refusal { status: 404, ..Refusal::default() })
}

fn not_stored(error: Error) -> Outcome {
    Outcome::Failed { error, fate: Fate::NotStored }
}

fn refused(kind: ErrorKind, slug: &str) -> Outcome {
    not_stored(Error::new(kind, "send a chunk").with_refusal(Refusal {
        status: 400,
        slug: Some(slug.into()),
        ..Refusal::default()
    }))
}
