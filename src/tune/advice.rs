//! The advice that follows from all measurements. Pure.

use std::num::NonZeroU64;

use super::bottleneck::{PathEvidence, TuneBottleneck, bottleneck_of};
use super::ceilings::{Ceiling, CeilingPart, fastest_reader};
use super::report::PathReport;
use crate::source::Reader;

/// The circumstances of a measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TuneContext {
    /// `true` if the service is reached over TLS.
    pub is_tls: bool,
    /// The bandwidth limit that the user set, in bytes per second.
    pub bandwidth_cap: Option<NonZeroU64>,
    /// The number of processors that this process may use.
    pub cores: usize,
}

/// The settings to use, and the bottleneck that remains with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TuneAdvice {
    /// The bottleneck.
    pub bottleneck: TuneBottleneck,
    /// The number of lanes.
    pub lanes: u32,
    /// The chunk size in bytes.
    pub chunk_bytes: u64,
    /// The reader of files.
    pub reader: Reader,
}

/// Returns the advice. Without `ceilings`, neither the disk nor the encryption can be the bottleneck.
pub fn advise(path: &PathReport, ceilings: &[Ceiling], context: &TuneContext) -> TuneAdvice {
    let sealing = ceilings.iter().find(|ceiling| ceiling.part == CeilingPart::Sealing);
    let evidence = PathEvidence {
        bandwidth_cap: context.bandwidth_cap.map(|cap| cap.get() as f64),
        // A file that is sent once is read once, from the disk.
        disk: fastest_reader(ceilings, false).map(|(_, rate)| rate),
        sealing: sealing
            .filter(|_| context.is_tls)
            .map(|sealing| sealing.bytes_per_second * context.cores.max(1) as f64),
        ..path.evidence()
    };
    TuneAdvice {
        bottleneck: bottleneck_of(&evidence),
        lanes: path.lanes,
        chunk_bytes: path.chunk_bytes,
        reader: reader_of(ceilings),
    }
}

/// Returns the reader of uncached files, if one is clearly faster than the one that [`Reader::Auto`] uses for them.
/// Cached files are left to `Auto`, because only it knows the state of each file.
fn reader_of(ceilings: &[Ceiling]) -> Reader {
    let cold = |wanted| {
        let part = CeilingPart::Reader { reader: wanted, is_cached: false };
        ceilings.iter().find(|ceiling| ceiling.part == part).map(|ceiling| ceiling.bytes_per_second)
    };
    // Where `O_DIRECT` is not available, `Auto` falls back to plain reads.
    let usual = cold(Reader::Direct).or_else(|| cold(Reader::Pread));
    match (fastest_reader(ceilings, false), usual) {
        // A map that waits for a cold disk blocks the other lanes of its worker.
        (Some((reader, rate)), Some(usual)) if rate > CLEARLY_FASTER * usual && reader != Reader::Mmap => {
            reader
        }
        _ => Reader::Auto,
    }
}

/// Readers differ by this much from one measurement to the next.
const CLEARLY_FASTER: f64 = 1.2;

#[cfg(test)]
mod tests {
    use super::*;

    fn cold(rates: &[(Reader, f64)]) -> Vec<Ceiling> {
        let ceiling = |&(reader, bytes_per_second): &(Reader, f64)| Ceiling {
            part: CeilingPart::Reader { reader, is_cached: false },
            bytes_per_second,
            cpu_seconds_per_gib: 0.1,
        };
        rates.iter().map(ceiling).collect()
    }

    #[test]
    fn another_reader_is_advised_only_if_it_is_clearly_faster() {
        assert_eq!(reader_of(&[]), Reader::Auto);
        assert_eq!(reader_of(&cold(&[(Reader::Direct, 100.0), (Reader::Uring, 110.0)])), Reader::Auto);
        assert_eq!(reader_of(&cold(&[(Reader::Direct, 100.0), (Reader::Uring, 150.0)])), Reader::Uring);
        assert_eq!(reader_of(&cold(&[(Reader::Pread, 100.0), (Reader::Uring, 150.0)])), Reader::Uring);
        assert_eq!(reader_of(&cold(&[(Reader::Direct, 100.0), (Reader::Mmap, 150.0)])), Reader::Auto);
    }
}
