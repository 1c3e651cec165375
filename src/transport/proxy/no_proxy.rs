//! The endpoints that are reached without the proxy: the list that `NO_PROXY` holds.

use std::net::IpAddr;

use crate::transport::endpoint::Endpoint;

/// A list of hosts that are reached without a proxy, as `NO_PROXY` holds it.
///
/// The entries are separated by commas or white space. Each is `*`, a host or a domain with its subdomains (with or
/// without a dot or `*.` in front), an address, or a network such as `10.0.0.0/8`, with or without a port. Case does not
/// matter. Names are compared as text: an address in the list does not match a name that resolves to it. Entries of any
/// other form match nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoProxy(String);

impl NoProxy {
    /// Creates the list from its text.
    pub fn new(list: impl Into<String>) -> NoProxy {
        NoProxy(list.into())
    }

    /// Returns `true` if an entry matches the endpoint.
    pub fn matches(&self, endpoint: &Endpoint) -> bool {
        let entries = self.0.split(|c: char| c == ',' || c.is_ascii_whitespace());
        entries.into_iter().any(|entry| exempts(entry, endpoint))
    }
}

/// Returns `true` if an entry matches the endpoint: `*`, a host, a domain, an address or a
/// network, with or without a port.
fn exempts(entry: &str, endpoint: &Endpoint) -> bool {
    if entry == "*" {
        return true;
    }
    let (name, port) = without_port(entry);
    if name.is_empty() || port.is_some_and(|port| port != endpoint.port().to_string()) {
        return false;
    }
    if let Ok(address) = endpoint.host().parse::<IpAddr>() {
        // `::ffff:10.0.0.1` is the address 10.0.0.1, too.
        return is_in_network(address.to_canonical(), name);
    }
    let name = name.strip_prefix('*').unwrap_or(name).trim_matches('.').to_ascii_lowercase();
    let host = endpoint.host().trim_end_matches('.');
    // A domain matches at a dot only: `video` does not match `api-video`.
    let is_below = host.strip_suffix(&*name).is_some_and(|below| below.is_empty() || below.ends_with('.'));
    !name.is_empty() && is_below
}

/// Splits `host:port` and `[address]:port`. An IPv6 address without brackets has no port.
fn without_port(entry: &str) -> (&str, Option<&str>) {
    let bracketed = entry.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    if let Some((address, rest)) = bracketed {
        return (address, rest.strip_prefix(':'));
    }
    match entry.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, Some(port)),
        _ => (entry, None),
    }
}

/// Returns `true` if `network`, an address or a CIDR block, contains `address`.
fn is_in_network(address: IpAddr, network: &str) -> bool {
    let (base, prefix) = match network.split_once('/') {
        Some((base, prefix)) => (base, prefix.parse::<u32>().ok()),
        // An address is a network of all its bits; for IPv4 the number is reduced to 32 below.
        None => (network, Some(128)),
    };
    let (Ok(base), Some(prefix)) = (base.parse::<IpAddr>(), prefix) else { return false };
    let (bits, differing) = match (base.to_canonical(), address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => (32, u128::from(u32::from(base) ^ u32::from(address))),
        (IpAddr::V6(base), IpAddr::V6(address)) => (128, u128::from(base) ^ u128::from(address)),
        _ => return false,
    };
    // Only the bits of the prefix must be equal. A prefix of 0 shifts out all 128 bits of an IPv6 address, for
    // which `checked_shr` returns `None`.
    differing.checked_shr(bits - prefix.min(bits)).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_exempt(url: &str, no_proxy: &str) -> bool {
        NoProxy::new(no_proxy).matches(&Endpoint::parse(url).unwrap())
    }

    #[test]
    fn an_entry_exempts_hosts_domains_addresses_and_networks() {
        for (url, no_proxy) in [
            ("https://ws.api.video", "*"),
            ("https://ws.api.video", "ws.api.video"),
            ("https://ws.api.video", "WS.API.Video"),
            ("https://ws.api.video", "api.video"),
            ("https://ws.api.video", ".api.video"),
            ("https://ws.api.video", "*.api.video"),
            ("https://ws.api.video", "ws.api.video:443"),
            ("https://ws.api.video.", "api.video"),
            ("http://127.0.0.1:8080", "127.0.0.1"),
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://127.0.0.1:8080", "127.0.0.0/8"),
            ("http://10.1.2.3", "10.1.2.3/32"),
            ("http://10.1.2.3", "0.0.0.0/0"),
            ("http://[::1]:81", "[::1]:81"),
            ("http://[::1]:81", "::1"),
            ("http://[fd00::5]", "fd00::/8"),
            ("http://[::ffff:10.1.2.3]", "10.0.0.0/8"),
        ] {
            assert!(is_exempt(url, no_proxy), "{url} {no_proxy}");
        }
    }

    #[test]
    fn an_entry_exempts_no_other_host() {
        for (url, no_proxy) in [
            ("https://ws.api.video", ""),
            ("https://ws.api.video", "."),
            ("https://ws.api.video", "i.video"),
            ("https://ws.api.video", "x.ws.api.video"),
            ("https://ws.api.video", "ws.api.video:8443"),
            ("http://127.0.0.1", "7.0.0.1"),
            ("http://127.0.0.1", ".0.0.1"),
            ("http://127.0.0.1:8080", "127.0.0.1:80"),
            ("http://127.0.0.1", "128.0.0.0/8"),
            ("http://10.1.2.3", "10.1.2.2/32"),
            ("http://10.1.2.3", "10.0.0.0/x"),
            ("http://[::1]", "::2"),
            ("http://[fd00::5]", "fe00::/8"),
            ("http://10.1.2.3", "fd00::/0"),
        ] {
            assert!(!is_exempt(url, no_proxy), "{url} {no_proxy}");
        }
    }

    #[test]
    fn entries_are_separated_by_commas_and_white_space() {
        for list in [
            "a,ws.api.video",
            "a, ws.api.video ,b",
            "a ws.api.video",
            "a\tws.api.video\n",
            ",,ws.api.video:443,",
        ] {
            assert!(is_exempt("https://ws.api.video", list), "{list}");
        }
        for list in ["", ",", "a.video,b.video", "ws.api.video:80 ws.api.video:8443", ":443", "[::1]"] {
            assert!(!is_exempt("https://ws.api.video", list), "{list}");
        }
    }
}
