//! The rate and the cost of a part of the machine.

use std::time::Duration;

use serde::Serialize;

use crate::source::Reader;

/// The largest rate of a part of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Ceiling {
    /// The part.
    #[serde(flatten)]
    pub part: CeilingPart,
    /// Bytes per second.
    pub bytes_per_second: f64,
    /// Processor time of this process, in seconds for each GiB.
    pub cpu_seconds_per_gib: f64,
}

/// A part of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CeilingPart {
    /// A reader of files.
    Reader {
        /// The reader.
        reader: Reader,
        /// `true` if the file was in the page cache.
        is_cached: bool,
    },
    /// The encryption of TLS on one processor.
    Sealing,
    /// Uploads to a server in this process, which stores them on the disk.
    Loopback {
        /// `true` over TLS.
        is_tls: bool,
    },
}

impl CeilingPart {
    /// Returns the name as in JSON.
    pub fn name(self) -> String {
        let cache = |is_cached| if is_cached { "hot" } else { "cold" };
        match self {
            CeilingPart::Reader { reader, is_cached } => format!("{reader}_{}", cache(is_cached)),
            CeilingPart::Sealing => "sealing".to_owned(),
            CeilingPart::Loopback { is_tls } => if is_tls { "loopback_tls" } else { "loopback" }.to_owned(),
        }
    }
}

impl Serialize for CeilingPart {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;

        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("part", &self.name())?;
        map.end()
    }
}

impl Ceiling {
    pub(super) fn new(part: CeilingPart, bytes: u64, elapsed: Duration, cpu: Duration) -> Ceiling {
        let bytes = bytes as f64;
        Ceiling {
            part,
            bytes_per_second: bytes / elapsed.as_secs_f64().max(1e-6),
            cpu_seconds_per_gib: cpu.as_secs_f64() * GIB / bytes.max(1.0),
        }
    }
}

/// Returns the rate of the fastest reader, among those of cached or uncached files.
pub(in crate::tune) fn fastest_reader(ceilings: &[Ceiling], cached: bool) -> Option<(Reader, f64)> {
    let rates = ceilings.iter().filter_map(|ceiling| match ceiling.part {
        CeilingPart::Reader { reader, is_cached } if is_cached == cached => {
            Some((reader, ceiling.bytes_per_second))
        }
        _ => None,
    });
    rates.max_by(|one, other| one.1.total_cmp(&other.1))
}

const GIB: f64 = (1u64 << 30) as f64;
