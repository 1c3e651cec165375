//! Addresses of NATS servers.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

use crate::api::Secret;

/// The servers of a NATS cluster, and the user to log in as. `Debug` and `Display` show no password and no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsAddress {
    hosts: Vec<String>,
    is_encrypted: bool,
    login: Option<Login>,
}

/// The login in a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Login {
    Password { user: String, password: Secret },
    Token(Secret),
}

/// The reason why a text is no address of NATS servers. It contains no part of the text, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NatsAddressFlaw {
    /// The scheme is another one.
    #[error("a NATS address begins with nats:// or tls://")]
    Scheme,
    /// A host is missing, or contains characters that no host has.
    #[error("a NATS address names a host, as nats://HOST:4222; further hosts follow after commas")]
    Host,
    /// A port is not a number from 1 to 65535.
    #[error("the port of a NATS address is a number from 1 to 65535")]
    Port,
    /// A later host has a login of its own.
    #[error("the user and the password stand once, before the first host: nats://USER:PASSWORD@HOST,HOST")]
    SecondLogin,
    /// The user or the password is not UTF-8.
    #[error("the user and the password of a NATS address are text, with % before two hexadecimal digits")]
    NotText,
    /// The address has a path, a query or a fragment.
    #[error("a NATS address ends after the last port")]
    Path,
    /// There are too many hosts.
    #[error("a NATS address names at most 32 hosts")]
    TooManyHosts,
}

impl NatsAddress {
    /// Returns the URL of each server, without a login.
    pub(super) fn urls(&self) -> impl Iterator<Item = String> {
        let scheme = self.scheme();
        self.hosts.iter().map(move |host| format!("{scheme}://{host}"))
    }

    /// Returns `true` if the connections are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    pub(super) fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    fn scheme(&self) -> &'static str {
        if self.is_encrypted { "tls" } else { "nats" }
    }
}

impl FromStr for NatsAddress {
    type Err = NatsAddressFlaw;

    fn from_str(text: &str) -> Result<NatsAddress, NatsAddressFlaw> {
        let (scheme, rest) = text.split_once("://").ok_or(NatsAddressFlaw::Scheme)?;
        let is_encrypted = match scheme {
            "nats" => false,
            "tls" => true,
            _ => return Err(NatsAddressFlaw::Scheme),
        };
        // The last `@`, as a password may contain one that its user has not encoded.
        let (login, hosts) = match rest.rsplit_once('@') {
            Some((login, hosts)) if !login.contains(['/', '?', '#']) => (Some(login), hosts),
            Some(_) => return Err(NatsAddressFlaw::SecondLogin),
            None => (None, rest),
        };
        let hosts = hosts.strip_suffix('/').unwrap_or(hosts).split(',').map(|host| {
            // Lists of whole URLs are common: nats://a:4222,nats://b:4222.
            host.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://")).unwrap_or(host)
        });
        let hosts = hosts.map(host_with_port).collect::<Result<Vec<_>, _>>()?;
        if hosts.len() > MOST_HOSTS {
            return Err(NatsAddressFlaw::TooManyHosts);
        }
        Ok(NatsAddress { hosts, is_encrypted, login: login.map(parse_login).transpose()? })
    }
}

impl fmt::Display for NatsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.hosts.join(","))
    }
}

fn parse_login(login: &str) -> Result<Login, NatsAddressFlaw> {
    let decode = |text: &str| {
        let decoded = percent_decode_str(text).decode_utf8();
        decoded.map(|text| text.into_owned()).map_err(|_| NatsAddressFlaw::NotText)
    };
    match login.split_once(':') {
        Some((user, password)) => {
            Ok(Login::Password { user: decode(user)?, password: decode(password)?.into() })
        }
        None => Ok(Login::Token(decode(login)?.into())),
    }
}

/// Returns the host with its port, by default the registered one of NATS.
fn host_with_port(text: &str) -> Result<String, NatsAddressFlaw> {
    if text.contains(['/', '?', '#']) {
        return Err(NatsAddressFlaw::Path);
    }
    // The colons of an IPv6 address stand in brackets.
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_ipv6 = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let inside = if is_ipv6 { &host[1..host.len() - 1] } else { host };
    if inside.is_empty() || !inside.chars().all(|c| is_plain(c) || (is_ipv6 && matches!(c, ':' | '%'))) {
        return Err(NatsAddressFlaw::Host);
    }
    let port = match port {
        Some(port) => port.parse::<u16>().ok().filter(|&port| port > 0).ok_or(NatsAddressFlaw::Port)?,
        None => DEFAULT_PORT,
    };
    Ok(format!("{host}:{port}"))
}

const DEFAULT_PORT: u16 = 4222;

/// More servers than a cluster has. It bounds the time of a first connection.
const MOST_HOSTS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_ports_and_logins_are_read() {
        let address: NatsAddress = "nats://kim:p%40ss@a.example,b:5000,[::1]:4223".parse().unwrap();
        assert_eq!(address.to_string(), "nats://a.example:4222,b:5000,[::1]:4223");
        let password = Login::Password { user: "kim".into(), password: "p@ss".into() };
        assert_eq!(address.login(), Some(&password));
        let address: NatsAddress = "tls://s3cret@a,tls://b/".parse().unwrap();
        assert_eq!((address.is_encrypted(), address.to_string()), (true, "tls://a:4222,b:4222".to_owned()));
        assert_eq!(address.login(), Some(&Login::Token("s3cret".into())));
        assert!("nats://a".parse::<NatsAddress>().unwrap().login().is_none());
    }

    #[test]
    fn a_flaw_and_the_debug_form_name_no_secret() {
        for (text, flaw) in [
            ("http://hunter2@a", NatsAddressFlaw::Scheme),
            ("a:4222", NatsAddressFlaw::Scheme),
            ("nats://u:hunter2@", NatsAddressFlaw::Host),
            ("nats://a,,b", NatsAddressFlaw::Host),
            ("nats://a b", NatsAddressFlaw::Host),
            ("nats://a:0", NatsAddressFlaw::Port),
            ("nats://u:hunter2@a:port", NatsAddressFlaw::Port),
            ("nats://a/jobs", NatsAddressFlaw::Path),
            ("nats://u:%ff@a", NatsAddressFlaw::NotText),
            ("nats://u:hunter2@a,nats://u:hunter2@b", NatsAddressFlaw::SecondLogin),
        ] {
            let error = text.parse::<NatsAddress>().unwrap_err();
            assert_eq!(error, flaw, "{text}");
            assert!(!error.to_string().contains("hunter2"));
        }
        let address: NatsAddress = "nats://u:hunter2@a".parse().unwrap();
        assert!(!format!("{address:?} {address}").contains("hunter2"));
    }
}
