//! The endpoints that are reached without the proxy: the list that `NO_PROXY` holds.

use std::net::{IpAddr, Ipv6Addr};

use crate::transport::endpoint::Endpoint;

/// A list of hosts that are reached without a proxy, as `NO_PROXY` holds it.
///
/// The entries are separated by commas or white space. Each is `*`, a host or a domain with its subdomains (with or
/// without a dot or `*.` in front), an address, or a network such as `10.0.0.0/8`, with or without a port. An IPv4 address
/// and its IPv6 form, `::ffff:10.0.0.1`, are the same, and so are networks of them. Case does not matter. Names are
/// compared as text: an address in the list does not match a name that resolves to it. Entries of any other form match
/// nothing.
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
        return is_in_network(address, name);
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
        Some((base, prefix)) => (base, Some(prefix)),
        None => (network, None),
    };
    let Ok(base) = base.parse::<IpAddr>() else { return false };
    let bits = if base.is_ipv4() { 32 } else { 128 };
    // An address is a network of all its bits.
    let prefix =
        prefix.map_or(Some(bits), |prefix| prefix.parse::<u32>().ok()).filter(|&prefix| prefix <= bits);
    // 10.0.0.0/8 is `::ffff:10.0.0.0/104`: 96 bits are in front of an IPv4 address.
    let Some(prefix) = prefix.map(|prefix| prefix + 128 - bits) else { return false };
    // A network that is larger than the range of all IPv4 addresses is meant for IPv6.
    if prefix < 96 && address.is_ipv4() {
        return false;
    }
    let differing = u128::from(as_v6(base)) ^ u128::from(as_v6(address));
    // Only the bits of the prefix must be equal. A prefix of 0 shifts out all 128 bits, for which `checked_shr` returns
    // `None`.
    differing.checked_shr(128 - prefix).unwrap_or(0) == 0
}

/// Returns the address in the form that IPv6 has for it.
fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
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
            ("http://[::ffff:10.1.2.3]", "10.1.2.3"),
            ("http://[::ffff:10.1.2.3]", "::ffff:0:0/64"),
            ("http://10.1.2.3", "::ffff:10.0.0.0/104"),
            ("http://[::ffff:10.1.2.3]", "::ffff:10.0.0.0/104"),
            ("http://10.1.2.3:81", "[::ffff:10.0.0.0/104]:81"),
            ("http://10.1.2.3", "::ffff:10.1.2.3"),
            ("http://10.1.2.3", "::ffff:10.1.2.3/128"),
            ("http://10.1.2.3", "::ffff:0.0.0.0/96"),
            ("http://[fd00::5]", "::/0"),
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
            ("http://11.1.2.3", "::ffff:10.0.0.0/104"),
            ("http://10.1.2.4", "::ffff:10.1.2.3"),
            ("http://[fd00::5]", "::ffff:0.0.0.0/96"),
            ("http://[fd00::5]", "0.0.0.0/0"),
            ("http://10.1.2.3", "10.1.2.3/33"),
            ("http://[fd00::5]", "fd00::5/129"),
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
