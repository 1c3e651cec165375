//! Sizes as text, with 1024-based units.

use std::fmt;
use std::str::FromStr;

/// A number of bytes. `64MiB`, `64M` and `64m` are equal; plain digits are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// The text is not a size.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a size: use digits and K, M, G or T, like 64MiB or 1.5G")]
pub struct NotASize;

impl FromStr for Size {
    type Err = NotASize;

    fn from_str(text: &str) -> Result<Size, NotASize> {
        let text = text.trim();
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (digits, unit) = text.split_at(end);
        let shift = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "ki" | "kib" => 10,
            "m" | "mb" | "mi" | "mib" => 20,
            "g" | "gb" | "gi" | "gib" => 30,
            "t" | "tb" | "ti" | "tib" => 40,
            "p" | "pb" | "pi" | "pib" => 50,
            _ => return Err(NotASize),
        };
        scale(digits, shift).map(Size).ok_or(NotASize)
    }
}

/// Multiplies a number by a power of two: whole numbers exactly, fractions rounded down to a byte.
fn scale(digits: &str, shift: u32) -> Option<u64> {
    if let Ok(whole) = digits.parse::<u64>() {
        return whole.checked_mul(1 << shift);
    }
    let number: f64 = digits.parse().ok()?;
    let bytes = number * (1u64 << shift) as f64;
    // There is no fraction of a byte.
    (shift > 0 && bytes < MAX_BYTES).then_some(bytes as u64)
}

/// Writes the size in the largest unit that is not larger than it: `1.50 GiB`.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        match units.into_iter().find(|(shift, _)| self.0 >> shift > 0) {
            None => write!(f, "{} B", self.0),
            Some((shift, unit)) if self.0.is_multiple_of(1 << shift) => {
                write!(f, "{} {unit}", self.0 >> shift)
            }
            Some((shift, unit)) => write!(f, "{:.2} {unit}", self.0 as f64 / (1u64 << shift) as f64),
        }
    }
}

/// Above this a float is no longer exact to the byte.
const MAX_BYTES: f64 = (1u64 << 53) as f64;

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Option<u64> {
        text.parse().ok().map(|Size(bytes)| bytes)
    }

    #[test]
    fn sizes_are_1024_based_however_their_unit_is_written() {
        for text in ["64MiB", "64M", "64m", "64MB", "64 mib", "65536k", "67108864", "67108864B", "0.0625G"] {
            assert_eq!(bytes(text), Some(64 << 20), "{text}");
        }
        assert_eq!(bytes("1.5G"), Some(3 << 29));
        assert_eq!(bytes("2TiB"), Some(2 << 40));
        assert_eq!(bytes("0"), Some(0));
    }

    #[test]
    fn invalid_size_is_refused() {
        for text in
            ["", "M", "-1", "1.5", "1..5M", "64X", "64MiBs", "1e3", "18446744073709551615K", "99999999999.5T"]
        {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_written_in_the_largest_fitting_unit() {
        assert_eq!(Size(64 << 20).to_string(), "64 MiB");
        assert_eq!(Size(3 << 29).to_string(), "1.50 GiB");
        assert_eq!(Size(1023).to_string(), "1023 B");
    }
}
