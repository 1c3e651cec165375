//! The estimated time of a run, and its bottleneck.

use std::time::Duration;

/// The work of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlannedWork {
    /// The bytes to send.
    pub bytes: u64,
    /// The chunks to send: one request each.
    pub chunks: u64,
    /// The videos to create: one request each.
    pub creates: u64,
}

/// The limits of a run. `None` is no limit, and so is a limit that is not a positive number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Capacity {
    /// The bandwidth in bytes per second.
    pub bytes_per_second: Option<f64>,
    /// The upload requests per minute.
    pub uploads_per_minute: Option<f64>,
    /// The other writing requests per minute, such as those that create a video.
    pub writes_per_minute: Option<f64>,
}

/// The limit that decides how long a run takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Bottleneck {
    /// The bandwidth.
    Bandwidth,
    /// The rate of upload requests.
    UploadRate,
    /// The rate of writing requests.
    WriteRate,
}

/// The estimated time of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Estimate {
    /// The time, capped at [`Duration::MAX`].
    pub time: Duration,
    /// The limit that decides the time.
    pub bottleneck: Bottleneck,
}

impl Estimate {
    /// Returns `max(bytes / bandwidth, chunks / upload rate, creates / write rate)`, and the largest of the three.
    /// Returns `None` if nothing is limited, or nothing is to be done.
    pub fn new(work: &PlannedWork, capacity: &Capacity) -> Option<Estimate> {
        let per_minute = |rate: Option<f64>| rate.map(|rate| rate / 60.0);
        let candidates = [
            (Bottleneck::Bandwidth, work.bytes, capacity.bytes_per_second),
            (Bottleneck::UploadRate, work.chunks, per_minute(capacity.uploads_per_minute)),
            (Bottleneck::WriteRate, work.creates, per_minute(capacity.writes_per_minute)),
        ];
        let times = candidates.into_iter().filter_map(|(bottleneck, count, per_second)| {
            let per_second = per_second.filter(|rate| *rate > 0.0)?;
            let seconds = count as f64 / per_second;
            let time = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
            (time > Duration::ZERO).then_some(Estimate { time, bottleneck })
        });
        // The first of equals: bandwidth is the one that a reader expects.
        times.reduce(|longest, other| if other.time > longest.time { other } else { longest })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WORK: PlannedWork = PlannedWork { bytes: 600_000_000, chunks: 100, creates: 10 };

    fn capacity(bytes_per_second: f64, uploads_per_minute: f64, writes_per_minute: f64) -> Capacity {
        Capacity {
            bytes_per_second: Some(bytes_per_second),
            uploads_per_minute: Some(uploads_per_minute),
            writes_per_minute: Some(writes_per_minute),
        }
    }

    #[test]
    fn the_slowest_of_the_three_binds() {
        let found = |capacity| Estimate::new(&WORK, &capacity).map(|e| (e.time.as_secs(), e.bottleneck));
        assert_eq!(found(capacity(1e6, 100.0, 100.0)), Some((600, Bottleneck::Bandwidth)));
        assert_eq!(found(capacity(1e9, 10.0, 100.0)), Some((600, Bottleneck::UploadRate)));
        assert_eq!(found(capacity(1e9, 1e6, 1.0)), Some((600, Bottleneck::WriteRate)));
    }

    #[test]
    fn without_limits_or_work_there_is_no_estimate() {
        assert_eq!(Estimate::new(&WORK, &Capacity::default()), None);
        assert_eq!(Estimate::new(&PlannedWork::default(), &capacity(1.0, 1.0, 1.0)), None);
        assert_eq!(Estimate::new(&WORK, &capacity(0.0, -1.0, f64::NAN)), None);
    }

    proptest! {
        #[test]
        fn no_numbers_panic_and_more_work_never_takes_less(
            bytes in any::<u64>(), chunks in any::<u64>(), more in any::<u64>(),
            rates in any::<(Option<f64>, Option<f64>, Option<f64>)>(),
        ) {
            let limits = Capacity {
                bytes_per_second: rates.0, uploads_per_minute: rates.1, writes_per_minute: rates.2,
            };
            let less = Estimate::new(&PlannedWork { bytes, chunks, creates: 1 }, &limits);
            let work = PlannedWork { bytes: bytes.saturating_add(more), chunks, creates: 1 };
            let all = Estimate::new(&work, &limits);
            prop_assert!(less.map(|e| e.time) <= all.map(|e| e.time));
        }
    }
}
