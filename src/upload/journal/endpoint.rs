//! Compares the addresses of services.

/// Returns whether two base URLs name the same service.
///
/// Scheme and host in another case, the default port and a slash at the end make no difference.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    one == other || canonical(one).is_some_and(|canonical_one| canonical(other) == Some(canonical_one))
}

/// `None` for what is no URL, which equals only itself.
fn canonical(url: &str) -> Option<(String, String, u16, String)> {
    let uri: http::Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let default_port = if scheme == "http" { 80 } else { 443 };
    let path = uri.path().trim_end_matches('/').to_owned();
    Some((scheme, uri.host()?.to_ascii_lowercase(), uri.port_u16().unwrap_or(default_port), path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_address_are_the_same_service() {
        for other in ["http://host:80/base", "HTTP://HOST/base/", "http://host/base//"] {
            assert!(is_same("http://host/base", other), "{other}");
        }
        assert!(is_same("https://ws.api.video", "https://ws.api.video:443/"));
    }

    #[test]
    fn another_scheme_host_port_or_path_is_another_service() {
        for other in ["https://host/base", "http://host2/base", "http://host:81/base", "http://host/Base"] {
            assert!(!is_same("http://host/base", other), "{other}");
        }
        assert!(!is_same("no url", "another") && is_same("no url", "no url"));
    }
}
