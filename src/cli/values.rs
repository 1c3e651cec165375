//! Parsing and formatting of sizes, times, pairs and counts.

use std::ffi::OsStr;
use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use clap::Arg;
use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use ringlift::transport::{Endpoint, Proxy};
use ringlift::upload::{LONGEST_TIME, MOST_LANES};
use ringlift::wire::limits::{MAX_CHUNK_BYTES, MIN_CHUNK_BYTES};
use ringlift::{ChunkSize, Secret};

/// A number of bytes. `64MiB`, `64M` and `64m` are equal; plain digits are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Size(pub(super) u64);

/// The text is not a size.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a size: use digits and K, M, G or T, like 64MiB or 1.5G")]
pub(super) struct NotASize;

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

/// Parses `auto`, or a size that the protocol permits for a chunk.
pub(super) fn chunk_size(text: &str) -> Result<ChunkSize, String> {
    if text == "auto" {
        return Ok(ChunkSize::Auto);
    }
    let Size(bytes) = text.parse().map_err(|error: NotASize| error.to_string())?;
    if (MIN_CHUNK_BYTES..=MAX_CHUNK_BYTES).contains(&bytes) {
        Ok(ChunkSize::Bytes(bytes))
    } else {
        Err(format!("use {} to {}", Size(MIN_CHUNK_BYTES), Size(MAX_CHUNK_BYTES)))
    }
}

/// A count, or `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    Auto,
    Exactly(NonZeroUsize),
}

/// Parses `auto`, or a number of connections.
pub(super) fn count(text: &str) -> Result<Count, String> {
    if text == "auto" {
        return Ok(Count::Auto);
    }
    match text.parse::<NonZeroUsize>() {
        Ok(lanes) if lanes.get() <= MOST_LANES => Ok(Count::Exactly(lanes)),
        _ => Err(format!("use `auto` or a number from 1 on, up to {MOST_LANES}")),
    }
}

/// Parses `90s`, `15m` or `1h30m`; plain digits are seconds.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let time = any_time(text)?;
    if time > LONGEST_TIME { Err("use 10 years or less".to_owned()) } else { Ok(time) }
}

/// Like [`time`], limited to the range of the service's field.
pub(super) fn ttl(text: &str) -> Result<Duration, String> {
    let time = any_time(text)?;
    if time.as_secs() > MAX_TTL_S { Err(format!("use {MAX_TTL_S} seconds or less")) } else { Ok(time) }
}

fn any_time(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text)
            .map_err(|_| "not a time: write it like 90s, 15m or 1h30m".to_owned()),
    }
}

/// Like [`time`], but rejects zero.
pub(super) fn patience(text: &str) -> Result<Duration, String> {
    match time(text)? {
        Duration::ZERO => Err("use a time above zero".to_owned()),
        time => Ok(time),
    }
}

/// Parses a rate per second; `0.5` is one every two seconds.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= MAX_A_SECOND => Ok(rate),
        _ => Err(format!("use a number above 0 and up to {MAX_A_SECOND}")),
    }
}

/// Parses a rate per minute: `100` or `100/m`.
pub(super) fn rate_a_minute(text: &str) -> Result<u32, String> {
    let digits = text.strip_suffix("/m").unwrap_or(text);
    match digits.parse() {
        Ok(rate) if rate > 0 && rate <= MAX_A_MINUTE => Ok(rate),
        _ => Err(format!("use a whole number from 1 on, up to {MAX_A_MINUTE}")),
    }
}

/// Parses `KEY=VALUE`. The value may contain further `=`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE".to_owned()),
    }
}

/// Parses an endpoint's URL into its canonical form.
///
/// Writes its own errors, because clap's would repeat a password in the URL.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndpointUrl;

impl TypedValueParser for EndpointUrl {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _: Option<&Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        let refused =
            |why: String| clap::Error::raw(ErrorKind::ValueValidation, why + "\n").with_cmd(command);
        let url = value.to_str().ok_or_else(|| refused("the endpoint's URL is not UTF-8".to_owned()))?;
        let endpoint = Endpoint::parse(url).map_err(|error| refused(error.to_string()))?;
        Ok(endpoint.canonical().to_owned())
    }
}

/// Parses `none` or the URL of a proxy.
///
/// Writes its own errors, because clap's would repeat the password in the URL.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProxyUrlOrNone;

impl TypedValueParser for ProxyUrlOrNone {
    type Value = Proxy;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Proxy, clap::Error> {
        // Invalid UTF-8 becomes U+FFFD, which is refused in a host and is never the right password.
        let text = value.to_string_lossy();
        if text.trim().eq_ignore_ascii_case("none") {
            return Ok(Proxy::none());
        }
        Proxy::parse(&text).map_err(|flaw| {
            let why = format!("invalid value for '--proxy <URL>': {flaw}\n");
            clap::Error::raw(ErrorKind::ValueValidation, why).with_cmd(command)
        })
    }
}

/// Parses a secret with this name. Writes its own errors, because clap's would print the secret.
#[derive(Clone, Copy, Debug)]
pub(super) struct SecretText(pub(super) &'static str);

impl TypedValueParser for SecretText {
    type Value = Secret;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Secret, clap::Error> {
        // The lossy text keeps invalid bytes as U+FFFD, which `Secret::parse` rejects as not ASCII.
        Secret::parse(&value.to_string_lossy()).map_err(|flaw| {
            let why = format!("the {} {flaw}\n", self.0);
            clap::Error::raw(ErrorKind::ValueValidation, why).with_cmd(command)
        })
    }
}

/// Exceeds the limits of every account.
const MAX_A_SECOND: f64 = 10_000.0;
const MAX_A_MINUTE: u32 = 600_000;

/// `/upload-tokens` stores the seconds in 31 bits.
const MAX_TTL_S: u64 = i32::MAX as u64;

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

    #[test]
    fn chunk_sizes_keep_to_the_protocol() {
        assert_eq!(chunk_size("auto"), Ok(ChunkSize::Auto));
        assert_eq!(chunk_size("5M"), Ok(ChunkSize::Bytes(5 << 20)));
        assert_eq!(chunk_size("4M"), Err("use 5 MiB to 200 MiB".to_owned()));
        assert!(chunk_size("201M").is_err());
    }

    #[test]
    fn times_pairs_and_counts_are_parsed() {
        assert_eq!(time("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(time("7"), Ok(Duration::from_secs(7)));
        assert!(time("soon").is_err());
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(pair("=b").is_err() && pair("a").is_err());
        assert_eq!(rate("0.5"), Ok(0.5));
        assert!(rate("0").is_err() && rate("NaN").is_err() && rate("inf").is_err());
        assert_eq!((rate_a_minute("100"), rate_a_minute("40/m")), (Ok(100), Ok(40)));
        assert!(
            rate_a_minute("0").is_err() && rate_a_minute("1.5").is_err() && rate_a_minute("1/s").is_err()
        );
        assert!(patience("0s").is_err());
        assert_eq!(count("auto"), Ok(Count::Auto));
        assert_eq!(count("3"), Ok(Count::Exactly(3.try_into().unwrap())));
        assert!(count("0").is_err());
    }
}
