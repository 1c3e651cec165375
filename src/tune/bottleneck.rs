//! The bottleneck of a path, as a pure function of what was measured.

use serde::Serialize;

use super::chunk_model::budget_rate;

/// The part of the path that bounds the speed of uploads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TuneBottleneck {
    /// The disk or file system, which reads the file no faster than the path takes it.
    Disk,
    /// The processors of this machine.
    Cpu,
    /// Each single connection: at the end, more of them were still faster almost in proportion, or more of them were
    /// not compared.
    Connection,
    /// The link, which all connections share: more of them were no faster, or only by what others on the link lost.
    Link,
    /// The service, which answers late or with errors.
    Service,
    /// The service's limit on requests.
    RequestBudget,
    /// The bandwidth limit that the user set.
    BandwidthCap,
}

/// The measurements that determine the bottleneck. Rates are in bytes per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct PathEvidence {
    /// The rate of the chosen number of lanes; `None` if nothing could be measured.
    pub(crate) rate: Option<f64>,
    /// `true` if the service answered 429.
    pub(crate) is_throttled: bool,
    /// `true` if requests failed for a reason of the service.
    pub(crate) has_failed: bool,
    /// The service's limit on upload requests.
    pub(crate) uploads_per_minute: Option<u32>,
    pub(crate) bandwidth_cap: Option<f64>,
    /// The share of all processors that this process used, from 0 to 1.
    pub(crate) cpu_share: f64,
    /// The rate of the fastest reader on the uncached file.
    pub(crate) disk: Option<f64>,
    /// The rate at which all processors together encrypt; `None` without TLS.
    pub(crate) sealing: Option<f64>,
    /// The share of the time of a request of the recommended size in which the lane waits for the answer, beyond two
    /// round trips.
    pub(crate) answering_share: f64,
    /// `true` if the largest number of lanes was faster than the one below almost in proportion.
    pub(crate) still_gains: bool,
    /// `true` if the effect of more lanes is unknown.
    pub(crate) is_undecided: bool,
}

/// Returns the bottleneck; if nothing could be measured, the service or its budget.
///
/// A 429 or a failure that ended the measurement is its result. Then limits that were set come before limits that were
/// measured, because they hide those.
pub(crate) fn bottleneck_of(evidence: &PathEvidence) -> TuneBottleneck {
    if evidence.is_throttled {
        return TuneBottleneck::RequestBudget;
    }
    // Rates from before the failure may exceed a limit, which must not hide that the service fails.
    if evidence.has_failed {
        return TuneBottleneck::Service;
    }
    let Some(rate) = evidence.rate else { return TuneBottleneck::RequestBudget };
    // Rates of a path and of a limit are measured at different times, and never agree exactly.
    let is_at = |limit: Option<f64>| limit.is_some_and(|limit| rate >= NEAR * limit);
    if is_at(evidence.bandwidth_cap) {
        TuneBottleneck::BandwidthCap
    } else if evidence.uploads_per_minute.map(budget_rate).is_some_and(|permitted| permitted < rate) {
        TuneBottleneck::RequestBudget
    } else if evidence.answering_share > MOST_ANSWERING {
        TuneBottleneck::Service
    } else if evidence.cpu_share > NEAR || is_at(evidence.sealing) {
        // Before the disk and the link: a busy processor makes every other part seem slow.
        TuneBottleneck::Cpu
    } else if is_at(evidence.disk) {
        TuneBottleneck::Disk
    } else if evidence.still_gains || evidence.is_undecided {
        // One lane proves no link that is full.
        TuneBottleneck::Connection
    } else {
        TuneBottleneck::Link
    }
}

impl TuneBottleneck {
    /// Returns the name as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            TuneBottleneck::Disk => "disk",
            TuneBottleneck::Cpu => "cpu",
            TuneBottleneck::Connection => "connection",
            TuneBottleneck::Link => "link",
            TuneBottleneck::Service => "service",
            TuneBottleneck::RequestBudget => "request_budget",
            TuneBottleneck::BandwidthCap => "bandwidth_cap",
        }
    }
}

/// A rate this close to a limit is bound by it.
const NEAR: f64 = 0.9;
/// Lanes that wait longer than this are slowed down by the service more than by the path.
const MOST_ANSWERING: f64 = 0.25;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at_100(change: impl FnOnce(&mut PathEvidence)) -> TuneBottleneck {
        let mut evidence = PathEvidence { rate: Some(100.0), ..PathEvidence::default() };
        change(&mut evidence);
        bottleneck_of(&evidence)
    }

    #[test]
    fn each_limit_is_named() {
        assert_eq!(at_100(|_| {}), TuneBottleneck::Link);
        assert_eq!(at_100(|evidence| evidence.still_gains = true), TuneBottleneck::Connection);
        assert_eq!(at_100(|evidence| evidence.is_undecided = true), TuneBottleneck::Connection);
        assert_eq!(at_100(|evidence| evidence.disk = Some(105.0)), TuneBottleneck::Disk);
        assert_eq!(at_100(|evidence| evidence.disk = Some(200.0)), TuneBottleneck::Link);
        assert_eq!(at_100(|evidence| evidence.cpu_share = 0.95), TuneBottleneck::Cpu);
        assert_eq!(at_100(|evidence| evidence.sealing = Some(101.0)), TuneBottleneck::Cpu);
        assert_eq!(at_100(|evidence| evidence.answering_share = 0.5), TuneBottleneck::Service);
        assert_eq!(at_100(|evidence| evidence.has_failed = true), TuneBottleneck::Service);
        assert_eq!(at_100(|evidence| evidence.bandwidth_cap = Some(100.0)), TuneBottleneck::BandwidthCap);
    }

    #[test]
    fn a_limit_that_was_set_hides_the_others() {
        let everything = PathEvidence {
            rate: Some(100.0),
            bandwidth_cap: Some(100.0),
            cpu_share: 1.0,
            disk: Some(50.0),
            still_gains: true,
            ..PathEvidence::default()
        };
        assert_eq!(bottleneck_of(&everything), TuneBottleneck::BandwidthCap);
    }

    #[test]
    fn a_budget_binds_if_the_largest_chunks_do_not_suffice() {
        let rate = |mib: f64| Some(mib * (1 << 20) as f64);
        let with = |mib| PathEvidence { rate: rate(mib), uploads_per_minute: Some(40), ..Default::default() };
        assert_eq!(bottleneck_of(&with(121.0)), TuneBottleneck::RequestBudget);
        assert_eq!(bottleneck_of(&with(119.0)), TuneBottleneck::Link);
    }

    proptest! {
        #[test]
        fn a_429_is_always_the_result(rate in prop::option::of(0.0..1e9), cpu_share in 0.0..1.0, gains: bool) {
            let evidence = PathEvidence {
                rate,
                is_throttled: true,
                has_failed: true,
                cpu_share,
                still_gains: gains,
                ..PathEvidence::default()
            };
            prop_assert_eq!(bottleneck_of(&evidence), TuneBottleneck::RequestBudget);
        }

        #[test]
        fn a_failure_is_the_result_however_fast_the_path_was(rate in prop::option::of(0.0..1e12), is_capped: bool) {
            let evidence = PathEvidence {
                rate,
                has_failed: true,
                uploads_per_minute: Some(100),
                bandwidth_cap: rate.filter(|_| is_capped),
                ..PathEvidence::default()
            };
            prop_assert_eq!(bottleneck_of(&evidence), TuneBottleneck::Service);
        }
    }
}
