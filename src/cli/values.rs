//! Parsing and formatting of sizes, times, pairs and counts.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Arg;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::error::ErrorKind;
pub(super) use ringlift::Size;
use ringlift::limits::{MAX_CHUNK_BYTES, MIN_CHUNK_BYTES};
use ringlift::{ChunkSize, Endpoint, LONGEST_TIME, MOST_LANES, Proxy, Secret, UnknownValue};

/// Parses `auto`, or a size that the protocol permits for a chunk.
pub(super) fn chunk_size(text: &str) -> Result<ChunkSize, String> {
    match text.parse().map_err(|error: UnknownValue| error.to_string())? {
        ChunkSize::Bytes(bytes) if !(MIN_CHUNK_BYTES..=MAX_CHUNK_BYTES).contains(&bytes) => {
            Err(format!("use {} to {}", Size(MIN_CHUNK_BYTES), Size(MAX_CHUNK_BYTES)))
        }
        chunk_size => Ok(chunk_size),
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
        _ => Err(format!("must be `auto` or a number from 1 to {MOST_LANES}")),
    }
}

/// Parses `90s`, `15m` or `1h30m`; plain digits are seconds.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let time = any_time(text)?;
    if time > LONGEST_TIME { Err("use 10 years or less".to_owned()) } else { Ok(time) }
}

/// Parses the address of a monitor: `PORT`, `ADDRESS:PORT` or `localhost:PORT`.
pub(super) fn monitor_address(text: &str) -> Result<SocketAddr, String> {
    let loopback = |port: &str| Some(SocketAddr::from(([127, 0, 0, 1], port.parse().ok()?)));
    let address = match text.strip_prefix("localhost:") {
        Some(port) => loopback(port),
        None => loopback(text).or_else(|| text.parse().ok()),
    };
    // Other programs listen on every address for `:9000`, which would publish the page.
    address.ok_or_else(|| "write it as PORT or ADDRESS:PORT, such as 9000 or 0.0.0.0:9000".to_owned())
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
        Duration::ZERO => Err("must be greater than zero".to_owned()),
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
        _ => Err(format!("must be a whole number from 1 to {MAX_A_MINUTE}")),
    }
}

/// Parses `KEY=VALUE`. The value may contain further `=`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE".to_owned()),
    }
}

/// Parses a path that may be empty, which clap's own parser refuses.
pub(super) fn path_or_nothing() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
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

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_monitor_is_local_unless_an_address_is_given() {
        let address = |text| monitor_address(text).map(|address| address.to_string());
        assert_eq!(address("9000"), Ok("127.0.0.1:9000".to_owned()));
        assert_eq!(address("localhost:0"), Ok("127.0.0.1:0".to_owned()));
        assert_eq!(address("[::1]:9000"), Ok("[::1]:9000".to_owned()));
        for text in [":9000", "0.0.0.0", "70000", "", "host:9000"] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
