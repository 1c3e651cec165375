//! Random identifiers.

use ring::rand::{SecureRandom, SystemRandom};

use super::problem::ProblemDetails;

/// Returns a video id: `vi` and 22 characters, as at the service.
pub(super) fn video_id() -> Result<String, ProblemDetails> {
    base62("vi", 22)
}

/// Returns an upload token: `to` and 22 characters, as at the service.
pub(super) fn upload_token() -> Result<String, ProblemDetails> {
    base62("to", 22)
}

/// Returns a secret for use as an API key, access token or refresh token.
pub(super) fn secret() -> Result<String, ProblemDetails> {
    base62("", 43)
}

/// Returns a version-4 UUID (RFC 9562, section 5.4), as in the links of private videos.
pub(super) fn uuid() -> Result<String, ProblemDetails> {
    let mut bits = u128::from_be_bytes(random()?);
    bits = bits & !(0xF000 << 64) | 0x4000 << 64;
    bits = bits & !(0xC000 << 48) | 0x8000 << 48;
    let hex = format!("{bits:032x}");
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

fn base62(prefix: &str, len: usize) -> Result<String, ProblemDetails> {
    let mut name = prefix.to_owned();
    while name.len() < prefix.len() + len {
        // 248 is the largest multiple of 62 below 256. Larger bytes would make the first characters more
        // likely.
        let fair = random::<32>()?.into_iter().filter(|byte| *byte < 248);
        name.extend(fair.map(|byte| char::from(DIGITS[usize::from(byte % 62)])));
    }
    name.truncate(prefix.len() + len);
    Ok(name)
}

fn random<const N: usize>() -> Result<[u8; N], ProblemDetails> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| ProblemDetails::server_error("the system returned no random bytes"))?;
    Ok(bytes)
}

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_have_the_format_of_the_service() {
        let id = video_id().unwrap();
        assert!(
            id.starts_with("vi") && id.len() == 24 && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
        );
        let uuid = uuid().unwrap();
        assert_eq!((uuid.len(), &uuid[14..15]), (36, "4"));
        assert!("89ab".contains(&uuid[19..20]), "{uuid}");
    }
}
