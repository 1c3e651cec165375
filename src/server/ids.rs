//! Names that nobody can guess.

use aws_lc_rs::rand;

use super::problem::Problem;

/// `vi` and 22 characters, as the service names videos.
pub(super) fn video_id() -> Result<String, Problem> {
    base62("vi", 22)
}

/// `to` and 22 characters, as the service names upload tokens.
pub(super) fn upload_token() -> Result<String, Problem> {
    base62("to", 22)
}

/// An API key, an access token or a refresh token.
pub(super) fn secret() -> Result<String, Problem> {
    base62("", 43)
}

/// One version-4 UUID (RFC 9562, section 5.4), as private videos carry in their links.
pub(super) fn uuid() -> Result<String, Problem> {
    let mut bits = u128::from_be_bytes(random()?);
    bits = bits & !(0xF000 << 64) | 0x4000 << 64;
    bits = bits & !(0xC000 << 48) | 0x8000 << 48;
    let hex = format!("{bits:032x}");
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

fn base62(prefix: &str, len: usize) -> Result<String, Problem> {
    let mut name = prefix.to_owned();
    while name.len() < prefix.len() + len {
        // Bytes from 248 on would make the first characters likelier.
        let fair = random::<32>()?.into_iter().filter(|byte| *byte < 248);
        name.extend(fair.map(|byte| char::from(DIGITS[usize::from(byte % 62)])));
    }
    name.truncate(prefix.len() + len);
    Ok(name)
}

fn random<const N: usize>() -> Result<[u8; N], Problem> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| Problem::server_error("the system has no random bytes"))?;
    Ok(bytes)
}

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_shape_of_the_services() {
        let id = video_id().unwrap();
        assert!(
            id.starts_with("vi") && id.len() == 24 && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
        );
        let uuid = uuid().unwrap();
        assert_eq!((uuid.len(), &uuid[14..15]), (36, "4"));
        assert!("89ab".contains(&uuid[19..20]), "{uuid}");
    }
}
