//! The headers of every request: `User-Agent`, `Accept-Encoding` and `AV-Origin-*`.

use http::header::{ACCEPT_ENCODING, USER_AGENT};
use http::{HeaderName, HeaderValue};

use crate::error::{Error, ErrorKind, Result};

/// The application and library that use ringlift, for the service's statistics.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    app: Option<HeaderValue>,
    sdk: Option<HeaderValue>,
}

impl Origin {
    /// Names no application and no library.
    pub fn new() -> Origin {
        Origin::default()
    }

    /// Sets the application (`AV-Origin-App`).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] unless `name` is 1 to 50 of `A-Z a-z 0-9 _ -` and `version` is
    /// one to three numbers of at most three digits: `1`, `1.20`, `1.20.3`.
    pub fn app(mut self, name: &str, version: &str) -> Result<Origin> {
        self.app = Some(named(name, version, "name the application")?);
        Ok(self)
    }

    /// Sets the library (`AV-Origin-Sdk`).
    ///
    /// # Errors
    /// The same as those of [`Origin::app`].
    pub fn sdk(mut self, name: &str, version: &str) -> Result<Origin> {
        self.sdk = Some(named(name, version, "name the library")?);
        Ok(self)
    }

    /// Returns the headers of every request to the service.
    ///
    /// Firewalls refuse requests without `User-Agent` (RFC 9110, section 10.1.5). Without `Accept-Encoding` a
    /// server may compress its answer (section 12.5.3), which this crate does not read.
    pub fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let always = [(USER_AGENT, AGENT), (ACCEPT_ENCODING, "identity"), (AV_ORIGIN_CLIENT, CLIENT)];
        let always = always.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value)));
        let caller = [(AV_ORIGIN_APP, self.app.clone()), (AV_ORIGIN_SDK, self.sdk.clone())];
        always.chain(caller.into_iter().filter_map(|(name, value)| Some((name, value?))))
    }
}

fn named(name: &str, version: &str, doing: &str) -> Result<HeaderValue> {
    let invalid = |reason: &str| Error::new(ErrorKind::InvalidInput, doing).because(reason);
    if !is_name(name) {
        return Err(invalid("its name must be 1 to 50 letters, digits, `_` or `-`"));
    }
    if !is_version(version) {
        return Err(invalid("its version must be one to three numbers below 1000, like 1.20.3"));
    }
    HeaderValue::try_from(format!("{name}:{version}")).map_err(|cause| invalid("").with_source(cause))
}

/// Matches `^[\w-]{1,50}$`.
fn is_name(name: &str) -> bool {
    (1..=50).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// Matches `^\d{1,3}(\.\d{1,3}(\.\d{1,3})?)?$`.
fn is_version(version: &str) -> bool {
    let is_number =
        |digits: &str| (1..=3).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    version.split('.').count() <= 3 && version.split('.').all(is_number)
}

const AGENT: &str = concat!("ringlift/", env!("CARGO_PKG_VERSION"));
const CLIENT: &str = concat!("ringlift:", env!("CARGO_PKG_VERSION"));
const AV_ORIGIN_CLIENT: HeaderName = HeaderName::from_static("av-origin-client");
const AV_ORIGIN_APP: HeaderName = HeaderName::from_static("av-origin-app");
const AV_ORIGIN_SDK: HeaderName = HeaderName::from_static("av-origin-sdk");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_name_ringlift_and_its_caller() {
        let origin = Origin::new().app("my_App-1", "1.20.3").unwrap().sdk("x", "7").unwrap();
        let headers: Vec<String> =
            origin.headers().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        let client = format!("av-origin-client: ringlift:{}", env!("CARGO_PKG_VERSION"));
        let agent = format!("user-agent: ringlift/{}", env!("CARGO_PKG_VERSION"));
        let always = [&agent, "accept-encoding: identity", &client];
        assert_eq!(headers[..3], always);
        assert_eq!(headers[3..], ["av-origin-app: my_App-1:1.20.3", "av-origin-sdk: x:7"]);
        assert_eq!(Origin::new().headers().count(), 3);
    }

    #[test]
    fn names_and_versions_are_held_to_the_published_patterns() {
        let long = "a".repeat(51);
        for (name, version) in [
            ("", "1"),
            ("a b", "1"),
            ("é", "1"),
            ("a:b", "1"),
            (&*long, "1"),
            ("a", ""),
            ("a", "1."),
            ("a", "1234"),
            ("a", "1.2.3.4"),
            ("a", "v1"),
        ] {
            let error = Origin::new().app(name, version).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}:{version}");
        }
    }
}
