//! URLs that carry a secret: a login, or a parameter by which a storage service or a CDN recognises a signed URL.

use percent_encoding::percent_decode_str;

/// Returns `true` if a URL has a login or a parameter whose name is one of a signature, a token or a password.
///
/// The query, the fragment and the path are searched: some CDNs put the signature into a folder, as in
/// `/hdnts=exp=1~hmac=2/`.
pub(super) fn has_secret(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, place) = rest.split_at(end);
    let names: Vec<String> = place.split(SEPARATORS).filter_map(name_of).collect();
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    let is_secure_link = has("md5") && (has("expires") || has("e"));
    authority.contains('@') || is_secure_link || names.iter().any(|name| is_secret(name))
}

/// Returns the name in `name=value` without its spelling: `X-API-Key` and `api_key` are the same to their users.
/// `None` if there is no name.
fn name_of(piece: &str) -> Option<String> {
    let (name, _) = piece.split_once('=')?;
    let decoded = percent_decode_str(name).decode_utf8_lossy();
    // Some services decode a name twice.
    let decoded = percent_decode_str(&decoded).decode_utf8_lossy();
    let letters = decoded.chars().filter(|character| character.is_alphanumeric());
    Some(letters.flat_map(char::to_lowercase).collect())
}

fn is_secret(name: &str) -> bool {
    NAMES.contains(&name)
        || BEGINS.iter().any(|begin| name.starts_with(begin))
        || ENDS.iter().any(|end| name.ends_with(end))
}

/// The characters between two parameters. A value of Akamai has parameters of its own, `exp=1~acl=/*~hmac=2`.
const SEPARATORS: [char; 6] = ['/', '?', '#', '&', ';', '~'];

/// The names of parameters, in small letters and digits.
#[rustfmt::skip]
const NAMES: [&str; 34] = [
    // AWS before version 4, CloudFront, Google before version 4, Azure.
    "awsaccesskeyid", "keypairid", "policy", "googleaccessid", "sig",
    // Akamai.
    "hdnts", "hdnea", "hdntl", "gda", "hmac",
    // Alibaba, Tencent, Huawei.
    "authkey", "ossaccesskeyid", "sign", "qak", "txsecret", "wssecret", "accesskeyid",
    // Dropbox, OneDrive, Google Drive.
    "rlkey", "tempauth", "resourcekey",
    // Swift.
    "tempurlsig",
    // Keys and logins.
    "key", "apikey", "xapikey", "auth", "authorization", "bearer", "jwt", "pass", "pwd", "passwd",
    "session", "sessionid", "credential",
];

/// The beginnings of names: the signatures of version 4 of AWS, of Google and of Alibaba.
const BEGINS: [&str; 3] = ["xamz", "xgoog", "xoss"];

/// The ends of names.
const ENDS: [&str; 6] = ["signature", "token", "password", "secret", "apikey", "accesskey"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signed_url_is_recognised_by_the_names_of_its_parameters() {
        for signed in [
            "X-Amz-Signature=1&X-Amz-Date=2",
            "X-Amz-Credential=1",
            "x-goog-signature=1",
            "AWSAccessKeyId=1&Expires=2",
            "sv=1&sig=2",
            "Policy=1&Key-Pair-Id=2",
            "Signature=1",
            "hdnts=exp=1~acl=/*~hmac=2",
            "hdnea=1",
            "__gda__=1",
            "st=1&exp=2~hmac=3",
            "md5=1&expires=2",
            "auth_key=1-0-0-2",
            "OSSAccessKeyId=1",
            "sign=1",
            "q-signature=1",
            "q-ak=1",
            "rlkey=1",
            "temp_url_sig=1",
            "token=1",
            "access_token=1",
            "bcdn_token=1",
            "key=1",
            "apikey=1",
            "X-API-Key=1",
            "password=1",
            "a=1;password=2",
            "%74oken=1",
            "X%2DAmz%2DSignature=1",
            "%2574oken=1",
        ] {
            for url in
                [format!("https://b.example/a.mp4?{signed}"), format!("https://b.example/a.mp4#{signed}")]
            {
                assert!(has_secret(&url), "{url}");
            }
        }
        for url in [
            "https://kim:secret@b.example/a.mp4",
            "https://kim@b.example",
            "https://b.example/hdnts=exp=1~hmac=2/a.mp4",
            "https://b.example/a.mp4;token=1",
        ] {
            assert!(has_secret(url), "{url}");
        }
    }

    #[test]
    fn a_public_url_is_not_taken_for_a_signed_one() {
        for public in [
            "https://b.example/a@b.mp4?version=3",
            "https://b.example/token/signature.mp4?v=token",
            "https://b.example/a.mp4?md5=0cc175b9c0f1b6a831c399e269772661",
            "https://b.example/a.mp4?expires=never&design=4&monkey=1&keyframe=2",
            "https://b.example/a.mp4#t=10,20",
            "https://b.example",
            "b.example/a.mp4",
        ] {
            assert!(!has_secret(public), "{public}");
        }
    }
}
