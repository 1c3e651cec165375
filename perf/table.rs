//! The table: the bar of each measurement, and its result.
//!
//! This module is independent of how the clients are run.

use serde::Serialize;

use crate::child::Usage;

/// A row before its measurement.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) id: &'static str,
    /// The measured work.
    pub(crate) work: &'static str,
    /// The competitor.
    pub(crate) against: &'static str,
    /// The kind of figure.
    pub(crate) figure: Figure,
    pub(crate) bar: Bar,
    /// The stretch target.
    pub(crate) stretch: Option<Bar>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Figure {
    /// Client-side processor seconds per GiB, ringlift divided by the competitor.
    CpuRatio,
    /// Bytes per second, ringlift divided by the competitor.
    ThroughputRatio,
    /// Wall time, ringlift divided by the competitor.
    WallRatio,
    /// Peak `RssAnon`, ringlift divided by the competitor.
    MemoryRatio,
    /// Peak `RssAnon` of ringlift.
    MemoryMib,
    /// MiB of the file in the page cache after ringlift's run.
    CacheMib,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bar {
    AtMost(f64),
    AtLeast(f64),
    /// At most this far from 1.
    Within(f64),
    /// For comparison only.
    None,
}

/// The runs of ringlift and of the competitor in one repetition.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Pair {
    pub(crate) ours: Run,
    pub(crate) theirs: Run,
}

/// One run of one client.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) usage: Usage,
    pub(crate) bytes: u64,
    /// MiB of the file in the page cache after the run, if measured.
    pub(crate) cached_mib: Option<f64>,
    /// The fraction of one core that the sink used during the run. Near 1, the sink is the bottleneck.
    pub(crate) sink_busy: Option<f64>,
}

impl Run {
    pub(crate) fn cpu_s_per_gib(&self) -> f64 {
        self.usage.cpu_s() / gib(self.bytes)
    }

    pub(crate) fn gib_per_s(&self) -> f64 {
        gib(self.bytes) / self.usage.wall_s
    }

    pub(crate) fn anon_mib(&self) -> f64 {
        self.usage.peak_anon_bytes as f64 / f64::from(1 << 20)
    }
}

/// A row after its measurement.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    #[serde(flatten)]
    pub(crate) row: Row,
    pub(crate) ours: Summary,
    pub(crate) theirs: Summary,
    /// The figure of each pair.
    pub(crate) value: Summary,
    pub(crate) verdict: Verdict,
    /// Warnings about the quality of the measurement.
    pub(crate) remarks: Vec<String>,
    pub(crate) sink_busy: Option<f64>,
    pub(crate) pairs: Vec<Pair>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Missed,
    Met,
    Stretch,
    /// The row has no bar.
    Compared,
}

/// Median and range of some figures.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Summary {
    fn of(figures: impl IntoIterator<Item = f64>) -> Summary {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let [min, .., max] = figures[..] else {
            let only = figures.first().copied().unwrap_or(f64::NAN);
            return Summary { median: only, min: only, max: only };
        };
        let middle = figures.len() / 2;
        let median = match figures.len() % 2 {
            0 => f64::midpoint(figures[middle - 1], figures[middle]),
            _ => figures[middle],
        };
        Summary { median, min, max }
    }

    /// Returns the range as a fraction of the median.
    fn spread(&self) -> f64 {
        (self.max - self.min) / self.median
    }
}

impl Row {
    pub(crate) fn judge(self, pairs: Vec<Pair>) -> Measured {
        let side = |figure: fn(&Run, Figure) -> f64, pick: fn(&Pair) -> &Run| {
            Summary::of(pairs.iter().map(|pair| figure(pick(pair), self.figure)))
        };
        let ours = side(measure, |pair| &pair.ours);
        let theirs = side(measure, |pair| &pair.theirs);
        let value = Summary::of(pairs.iter().map(|pair| self.figure.of(pair)));
        let busy = Summary::of(pairs.iter().filter_map(|pair| pair.ours.sink_busy)).median;
        let sink_busy = busy.is_finite().then_some(busy);
        let verdict = self.verdict(value.median);
        let remarks = self.remarks(&value, sink_busy);
        Measured { row: self, ours, theirs, value, verdict, remarks, sink_busy, pairs }
    }

    fn verdict(&self, value: f64) -> Verdict {
        match (self.bar, self.stretch) {
            (Bar::None, _) => Verdict::Compared,
            (bar, _) if !bar.holds(value) => Verdict::Missed,
            (_, Some(stretch)) if stretch.holds(value) => Verdict::Stretch,
            _ => Verdict::Met,
        }
    }

    fn remarks(&self, value: &Summary, sink_busy: Option<f64>) -> Vec<String> {
        let mut remarks = Vec::new();
        if value.spread() > NOISY {
            remarks.push(format!("noisy: the pairs lie {:.0} % apart", 100.0 * value.spread()));
        }
        if matches!(self.bar, Bar::AtMost(_) | Bar::AtLeast(_))
            && self.bar.holds(value.min) != self.bar.holds(value.max)
        {
            remarks.push("some pairs are on the other side of the bar".to_owned());
        }
        if self.figure == Figure::ThroughputRatio && sink_busy.is_some_and(|busy| busy > SINK_LIMITS) {
            remarks.push("the sink may have been the limit".to_owned());
        }
        remarks
    }
}

/// Returns the value of one client for a figure.
fn measure(run: &Run, figure: Figure) -> f64 {
    match figure {
        Figure::CpuRatio => run.cpu_s_per_gib(),
        Figure::ThroughputRatio => run.gib_per_s(),
        Figure::WallRatio => run.usage.wall_s,
        Figure::MemoryRatio | Figure::MemoryMib => run.anon_mib(),
        Figure::CacheMib => run.cached_mib.unwrap_or(f64::NAN),
    }
}

impl Figure {
    fn of(self, pair: &Pair) -> f64 {
        let ours = measure(&pair.ours, self);
        match self {
            Figure::MemoryMib | Figure::CacheMib => ours,
            _ => ours / measure(&pair.theirs, self),
        }
    }

    /// Returns the unit of the values.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Figure::CpuRatio => "CPU s/GiB",
            Figure::ThroughputRatio => "GiB/s",
            Figure::WallRatio => "s",
            Figure::MemoryRatio | Figure::MemoryMib | Figure::CacheMib => "MiB",
        }
    }

    pub(crate) fn is_ratio(self) -> bool {
        !matches!(self, Figure::MemoryMib | Figure::CacheMib)
    }
}

impl Bar {
    pub(crate) fn holds(self, value: f64) -> bool {
        match self {
            Bar::AtMost(most) => value <= most,
            Bar::AtLeast(least) => value >= least,
            Bar::Within(part) => (value - 1.0).abs() <= part,
            Bar::None => true,
        }
    }
}

pub(crate) fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// Pairs with a larger spread are marked as noisy.
const NOISY: f64 = 0.3;
const SINK_LIMITS: f64 = 0.9;
