//! The result in words and as tables.

use ringlift::ErrorKind;
use ringlift::tune::{
    Ceiling, CeilingPart, PathEnd, PathReport, RateInterval, Rung, RungPurpose, SpentLimit, TuneAdvice,
    TuneBottleneck, UnmeasuredLanes,
};

use crate::cli::table::{Align, Table};
use crate::cli::values::Size;

/// Returns one sentence that names the bottleneck.
pub(super) fn sentence(advice: &TuneAdvice, report: &PathReport) -> String {
    let rate = report.rate.as_ref().map_or_else(|| "nothing".to_owned(), speed);
    let reach = if advice.lanes == 1 { "1 lane reaches" } else { &format!("{} lanes reach", advice.lanes) };
    match advice.bottleneck {
        TuneBottleneck::Disk => {
            format!(
                "The disk is the bottleneck: it reads the file no faster than the path takes it; {reach} {rate}."
            )
        }
        TuneBottleneck::Cpu => {
            format!("The processors are the bottleneck: {reach} {rate} and keep them busy.")
        }
        TuneBottleneck::Connection => match report.more_lanes_unmeasured {
            Some(reason) => format!(
                "Perhaps each connection is the bottleneck: {reach} {rate}; more lanes were not compared, because {}.",
                cause_of(reason)
            ),
            None => {
                format!("Each connection is the bottleneck: {reach} {rate}, and the last ones still gained.")
            }
        },
        TuneBottleneck::Link => {
            format!("The link is the bottleneck: {reach} {rate}, and more lanes gain little or nothing.")
        }
        TuneBottleneck::Service if is_stalled(report) => {
            format!("The service is the bottleneck: at the end no byte moved; before, {reach} {rate}.")
        }
        TuneBottleneck::Service => {
            format!("The service is the bottleneck: it answers late or with errors; {reach} {rate}.")
        }
        TuneBottleneck::RequestBudget if matches!(report.end, PathEnd::Throttled) => {
            "The request budget is the bottleneck: the service answered 429, and the measurement ended."
                .to_owned()
        }
        TuneBottleneck::RequestBudget => format!(
            "The request budget is the bottleneck: {reach} {rate}, more than {} requests a minute carry.",
            report.uploads_per_minute.unwrap_or(0)
        ),
        TuneBottleneck::BandwidthCap => {
            format!("The limit of --bwlimit is the bottleneck: {reach} {rate}.")
        }
        other => format!("The bottleneck is {}: {reach} {rate}.", other.name()),
    }
}

fn is_stalled(report: &PathReport) -> bool {
    matches!(&report.end, PathEnd::Failed(error) if error.kind() == ErrorKind::Stalled)
}

/// Returns the recommended flags.
pub(super) fn recommendation(advice: &TuneAdvice, report: &PathReport) -> String {
    let chunk = flag_size(advice.chunk_bytes);
    // Without a comparison, the automatic number may be better than the one that was measured.
    let lanes = match report.more_lanes_unmeasured {
        None => format!("--concurrency {} ", advice.lanes),
        Some(_) => String::new(),
    };
    format!("Use {lanes}--chunk-size {chunk} --reader {}.", advice.reader)
}

fn cause_of(reason: UnmeasuredLanes) -> &'static str {
    match reason {
        UnmeasuredLanes::MostLanes => "--max-lanes permits no more",
        UnmeasuredLanes::Requests => "no requests were left of --max-requests or of the service's budget",
        UnmeasuredLanes::Bytes => "--max-bytes permits no more",
        UnmeasuredLanes::Time => "--max-time permits no more",
        UnmeasuredLanes::TooFast => "their bytes were sent too fast to be counted",
        _ => "the measurement ended before",
    }
}

/// Returns a remark on a measurement that ended early, if it did.
pub(super) fn remark(report: &PathReport) -> Option<String> {
    match &report.end {
        PathEnd::Complete | PathEnd::Throttled => None,
        PathEnd::Spent(SpentLimit::Requests) => Some(
            "the measurement ended at its requests: --max-requests allows more, if the service has more left"
                .to_owned(),
        ),
        PathEnd::Spent(SpentLimit::Bytes) => {
            Some("the measurement ended at its bytes: --max-bytes allows more".to_owned())
        }
        PathEnd::Spent(_) => Some("the measurement ended at its time: --max-time allows more".to_owned()),
        PathEnd::Failed(error) => Some(format!("the measurement ended at a failure: {error}")),
        _ => Some("the measurement was stopped".to_owned()),
    }
}

/// Returns a size as a flag takes it, exactly.
pub(super) fn flag_size(bytes: u64) -> String {
    if bytes.is_multiple_of(1 << 20) { format!("{}MiB", bytes >> 20) } else { format!("{}KiB", bytes >> 10) }
}

/// Returns the line of one measurement.
pub(super) fn rung_line(rung: &Rung) -> String {
    format!("{}: {} ({})", lanes(rung.lanes), speed(&rung.rate), interval(&rung.rate))
}

/// Returns the table of the measured numbers of lanes.
pub(super) fn rungs(report: &PathReport) -> String {
    use Align::{Left, Right};
    let columns = [
        ("LANES", Right),
        ("MiB/s", Right),
        ("95 % INTERVAL", Right),
        ("SETTLED", Left),
        ("SECONDS", Right),
        ("CPU", Right),
        ("REASON", Left),
    ];
    let mut table = Table::new(columns);
    for rung in &report.rungs {
        let reason = match rung.purpose {
            RungPurpose::Ladder => "ladder",
            RungPurpose::Refinement => "refinement",
            _ => "comparison",
        };
        table.row([
            rung.lanes.to_string(),
            format!("{:.1}", mib(rung.rate.mean)),
            interval(&rung.rate),
            if rung.rate.is_settled { "yes" } else { "no" }.to_owned(),
            format!("{:.1}", rung.window.as_secs_f64()),
            format!("{:.0} %", rung.cpu_share * 100.0),
            reason.to_owned(),
        ]);
    }
    table.to_string()
}

/// Returns the table of the parts of the machine.
pub(super) fn ceilings(ceilings: &[Ceiling]) -> String {
    let mut table = Table::new([("PART", Align::Left), ("MiB/s", Align::Right), ("CPU s/GiB", Align::Right)]);
    for ceiling in ceilings {
        table.row([
            part_name(ceiling.part),
            format!("{:.1}", mib(ceiling.bytes_per_second)),
            format!("{:.2}", ceiling.cpu_seconds_per_gib),
        ]);
    }
    table.to_string()
}

/// Returns the name of a part for people.
pub(super) fn part_name(part: CeilingPart) -> String {
    match part {
        CeilingPart::Reader { reader, is_cached: true } => format!("reader {reader}, cached file"),
        CeilingPart::Reader { reader, is_cached: false } => format!("reader {reader}, uncached file"),
        CeilingPart::Sealing => "encryption, one processor".to_owned(),
        CeilingPart::Loopback { is_tls: true } => "upload over loopback, HTTPS".to_owned(),
        CeilingPart::Loopback { is_tls: false } => "upload over loopback, HTTP".to_owned(),
        other => other.name(),
    }
}

pub(super) fn mib(bytes: f64) -> f64 {
    bytes / (1u64 << 20) as f64
}

fn lanes(count: u32) -> String {
    if count == 1 { "1 lane".to_owned() } else { format!("{count} lanes") }
}

fn speed(rate: &RateInterval) -> String {
    format!("{}/s", Size(rate.mean as u64))
}

fn interval(rate: &RateInterval) -> String {
    format!("{:.1} to {:.1}", mib(rate.low), mib(rate.high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_flags_are_exact() {
        assert_eq!(flag_size(64 << 20), "64MiB");
        assert_eq!(flag_size((5 << 20) + (256 << 10)), "5376KiB");
        for bytes in [5 << 20, (5 << 20) + (256 << 10), 200 << 20] {
            assert_eq!(flag_size(bytes).parse::<Size>().unwrap().0, bytes);
        }
    }
}
