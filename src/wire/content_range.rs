//! The `Content-Range` of an upload, in its four spellings.
//!
//! `bytes A-B/T`, `bytes A-B/*`, `part N/M` and `part N/*`, with `A-B` inclusive and parts counted
//! from 1 (`POST /videos/{videoId}/source` in the service's OpenAPI description). [`Display`] and
//! [`FromStr`] are inverse. Parsing checks the grammar only; the server checks the numbers.
//!
//! [`Display`]: fmt::Display

use std::fmt;
use std::str::FromStr;

use crate::extent::Extent;

/// The piece of the file that a request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContentRange {
    /// `bytes A-B/T`: the piece by its position in the file.
    Bytes {
        /// The bytes carried; never empty.
        extent: Extent,
        /// The length of the whole file in bytes; `None`, on the wire `*`, while unknown.
        total: Option<u64>,
    },
    /// `part N/M`: the piece by its number.
    Part {
        /// The part's number, counted from 1.
        number: u32,
        /// The number of parts; `None`, on the wire `*`, while unknown.
        total: Option<u32>,
    },
}

/// The reason why a text is not a `Content-Range` of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentRangeError {
    /// The text has neither of the two syntaxes, or a number is too large.
    #[error("expected `bytes <from>-<to>/<total>` or `part <number>/<total>`, where a total may be `*`")]
    Malformed,
    /// The range ends before it starts.
    #[error("the range starts at byte {from} and ends before that, at byte {to}")]
    FromByteTooHigh {
        /// The first byte as written.
        from: u64,
        /// The last byte as written.
        to: u64,
    },
}

impl fmt::Display for ContentRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            ContentRange::Bytes { extent, total } => {
                // The wire cannot express an empty range. Such an extent never reaches a request.
                let last_byte = extent.last_byte().unwrap_or(extent.offset());
                write!(f, "bytes {}-{last_byte}/{}", extent.offset(), Total(total))
            }
            ContentRange::Part { number, total } => {
                write!(f, "part {number}/{}", Total(total))
            }
        }
    }
}

impl FromStr for ContentRange {
    type Err = ContentRangeError;

    fn from_str(text: &str) -> Result<ContentRange, ContentRangeError> {
        let (unit, rest) = text.split_once(' ').ok_or(ContentRangeError::Malformed)?;
        let (place, total) = rest.split_once('/').ok_or(ContentRangeError::Malformed)?;
        match unit {
            "bytes" => {
                let (from, to) = place.split_once('-').ok_or(ContentRangeError::Malformed)?;
                let (from, to) = (number(from)?, number(to)?);
                let total = parse_total(total)?;
                // The service has an error of its own for this (`/reference/video-content-range-by-bytes-from-
                // byte-too-high`).
                if from > to {
                    return Err(ContentRangeError::FromByteTooHigh { from, to });
                }
                let extent = Extent::from_bounds(from, to).ok_or(ContentRangeError::Malformed)?;
                Ok(ContentRange::Bytes { extent, total })
            }
            "part" => Ok(ContentRange::Part { number: number(place)?, total: parse_total(total)? }),
            _ => Err(ContentRangeError::Malformed),
        }
    }
}

/// A total in the header: a number or `*`.
struct Total<N>(Option<N>);

impl<N: fmt::Display> fmt::Display for Total<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(total) => total.fmt(f),
            None => f.write_str("*"),
        }
    }
}

fn parse_total<N: FromStr>(text: &str) -> Result<Option<N>, ContentRangeError> {
    match text {
        "*" => Ok(None),
        digits => number(digits).map(Some),
    }
}

/// Parses digits. `FromStr` of the integers would also accept a sign, which the grammar does not have.
fn number<N: FromStr>(digits: &str) -> Result<N, ContentRangeError> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ContentRangeError::Malformed);
    }
    digits.parse().map_err(|_| ContentRangeError::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(offset: u64, len: u64, total: Option<u64>) -> ContentRange {
        ContentRange::Bytes { extent: Extent::new(offset, len), total }
    }

    #[test]
    fn headers_are_spelled_as_in_the_guide() {
        let total = Some(281_905_832);
        let mib_100 = 104_857_600;
        for (header, range) in [
            ("bytes 0-104857599/281905832", bytes(0, mib_100, total)),
            ("bytes 104857600-209715199/281905832", bytes(mib_100, mib_100, total)),
            ("bytes 209715200-281905831/281905832", bytes(2 * mib_100, 72_190_632, total)),
            ("bytes 0-5242879/*", bytes(0, 5_242_880, None)),
            ("part 1/3", ContentRange::Part { number: 1, total: Some(3) }),
            ("part 2/*", ContentRange::Part { number: 2, total: None }),
        ] {
            assert_eq!(range.to_string(), header);
            assert_eq!(header.parse(), Ok(range));
        }
    }

    #[test]
    fn other_grammars_are_malformed() {
        for text in [
            "",
            "bytes",
            "bytes ",
            "bytes 0-1",
            "bytes 0-1/",
            "bytes 0-/2",
            "bytes -1/2",
            "bytes 0 - 1/2",
            "bytes  0-1/2",
            "bytes 0-1/2 ",
            " bytes 0-1/2",
            "Bytes 0-1/2",
            "bytes=0-1/2",
            "bytes +0-1/2",
            "bytes 0-18446744073709551615/*",
            "bytes 0-18446744073709551616/*",
            "bytes */2",
            "bytes 0-1/-2",
            "part 1",
            "part 1/",
            "part /3",
            "part */3",
            "part -1/3",
            "part 1/3/3",
            "part 4294967296/*",
            "part%201%2F3",
            "octets 0-1/2",
            "part 1-2/3",
        ] {
            assert_eq!(text.parse::<ContentRange>(), Err(ContentRangeError::Malformed), "{text:?}");
        }
    }

    #[test]
    fn a_range_that_ends_before_it_starts_has_an_error_of_its_own() {
        assert_eq!(
            "bytes 200-100/5000".parse::<ContentRange>(),
            Err(ContentRangeError::FromByteTooHigh { from: 200, to: 100 }),
        );
    }

    fn any_range() -> impl Strategy<Value = ContentRange> {
        let in_bytes = (0..u64::MAX / 2, 1..u64::MAX / 2, any::<Option<u64>>())
            .prop_map(|(offset, len, total)| bytes(offset, len, total));
        let in_parts = (any::<u32>(), any::<Option<u32>>())
            .prop_map(|(number, total)| ContentRange::Part { number, total });
        prop_oneof![in_bytes, in_parts]
    }

    proptest! {
        #[test]
        fn printing_and_parsing_are_inverse(range in any_range()) {
            prop_assert_eq!(range.to_string().parse(), Ok(range));
        }

        #[test]
        fn any_text_is_refused_or_parsed(text in "(bytes |part )?[0-9*/ -]{0,40}") {
            if let Ok(range) = text.parse::<ContentRange>() {
                prop_assert_eq!(range.to_string().parse(), Ok(range));
            }
        }
    }
}
