//! Compares the addresses of services.

use crate::transport::Endpoint;

/// Returns `true` if two base URLs name the same service. Their spelling is irrelevant.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    one == other || Endpoint::canonical_of(one) == Endpoint::canonical_of(other)
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
