//! Search for a secret in a text, in any encoding.
//!
//! A service or a proxy repeats its input unchanged, or escaped for the format of its output:
//! percent-encoded (RFC 3986), as a form (`+`), for JSON (RFC 8259), for HTML, or by several of these in turn.
//! Which characters are escaped differs from program to program, so each character of the secret is matched
//! on its own, in any of its encodings.

/// Replaces a secret in a text.
pub(crate) const MASK: &str = "***";

/// Secrets with fewer characters are not searched for: ordinary words contain such a run.
pub(crate) const MIN_SECRET_CHARS: usize = 4;

/// The first characters of escapes.
const ESCAPES: [char; 4] = ['%', '\\', '&', '+'];

/// Returns `text` with each of the `secrets` replaced by [`MASK`]; `None` if it holds none of them.
///
/// If several begin at the same position, the first in `secrets` is taken.
pub(crate) fn mask_secrets<'a>(text: &str, secrets: impl Iterator<Item = &'a str> + Clone) -> Option<String> {
    let secrets = secrets.filter(|secret| secret.chars().nth(MIN_SECRET_CHARS - 1).is_some());
    // Lines of output are searched: nearly every position is excluded by its byte alone.
    let mut may_begin = [false; 256];
    let first_bytes = secrets.clone().filter_map(|secret| secret.bytes().next());
    first_bytes.chain(ESCAPES.map(|c| c as u8)).for_each(|byte| may_begin[usize::from(byte)] = true);
    let mut clean = String::new();
    let mut kept_from = 0;
    let mut at = 0;
    while let Some(skipped) = text.as_bytes()[at..].iter().position(|byte| may_begin[usize::from(*byte)]) {
        at += skipped;
        // An escape may begin at any position, but a slice of `str` only at a character.
        if text.is_char_boundary(at)
            && let Some(end) = secrets.clone().find_map(|secret| end_of(secret, text, at))
        {
            clean += &text[kept_from..at];
            clean += MASK;
            // The search goes on behind the secret, so that overlapping secrets do not leave a part of it.
            (kept_from, at) = (end, end);
        } else {
            at += 1;
        }
    }
    (kept_from > 0).then(|| clean + &text[kept_from..])
}

/// Returns the last possible end of `secret` in `text`, if it begins at `start`.
fn end_of(secret: &str, text: &str, start: usize) -> Option<usize> {
    // A quick check, since the secret begins at almost no position.
    let first = secret.chars().next()?;
    let rest = &text[start..];
    if !rest.starts_with(first) && !rest.starts_with(ESCAPES) {
        return None;
    }
    let mut ends = vec![start];
    for c in secret.chars() {
        let mut next = Vec::new();
        // A text may spell one character in several ways, so all possible ends are followed.
        for &at in &ends {
            spelled(c, text, at, MAX_LAYERS, &mut next);
        }
        ends = bounded(next)?;
    }
    // The longest match is masked, so that no end of a longer spelling stays.
    ends.last().copied()
}

/// Adds to `ends` each end of an encoding of `c` that begins at `at` and has at most `layers` of escapes.
fn spelled(c: char, text: &str, at: usize, layers: usize, ends: &mut Vec<usize>) {
    let Some(rest) = text.get(at..) else { return };
    if rest.starts_with(c) {
        ends.push(at + c.len_utf8());
    }
    // A form writes a space as `+` (application/x-www-form-urlencoded).
    if c == ' ' && rest.starts_with('+') {
        ends.push(at + 1);
    }
    // Every escape begins with one of these, and so does an escaped escape.
    if layers == 0 || !rest.starts_with(['%', '\\', '&']) {
        return;
    }
    let layers = layers - 1;
    percent_encoded(c, text, at, layers, ends);
    if let Some(introduced) = ends_of("\\", text, at, layers) {
        backslashed(c, text, &introduced, layers, ends);
    }
    if let Some(introduced) = ends_of("&", text, at, layers) {
        html_escaped(c, text, &introduced, layers, ends);
    }
}

/// Matches `%2F`, or `%u002F` as old servers write it.
fn percent_encoded(c: char, text: &str, at: usize, layers: usize, ends: &mut Vec<usize>) {
    let mut utf8 = [0; 4];
    let bytes = c.encode_utf8(&mut utf8).bytes();
    let encoded: String = bytes.map(|byte| format!("%{byte:02x}")).collect();
    for encoded in [encoded, utf16(c, "%u")] {
        ends.extend(ends_of(&encoded, text, at, layers).into_iter().flatten());
    }
}

/// Matches `\/`, `\u002F`, and `\x2F` or `\u{2f}` as logs and debuggers write them.
fn backslashed(c: char, text: &str, introduced: &[usize], layers: usize, ends: &mut Vec<usize>) {
    let code = u32::from(c);
    let mut escapes = vec![utf16(c, "\\u")[1..].to_owned(), format!("u{{{code:x}}}")];
    match c {
        '\n' => escapes.push("n".to_owned()),
        '\r' => escapes.push("r".to_owned()),
        '\t' => escapes.push("t".to_owned()),
        // JSON requires a backslash only before `"` and `\`, but some encoders also escape `/`.
        c if c.is_ascii_punctuation() => escapes.push(c.to_string()),
        _ => {}
    }
    if code <= 0xff {
        escapes.push(format!("x{code:02x}"));
    }
    for escape in &escapes {
        for &at in introduced {
            ends.extend(ends_of(escape, text, at, layers).into_iter().flatten());
        }
    }
}

/// Matches `&amp;`, `&#38;` or `&#x26;`. The semicolon is optional, as in browsers.
fn html_escaped(c: char, text: &str, introduced: &[usize], layers: usize, ends: &mut Vec<usize>) {
    let code = u32::from(c);
    let names = ENTITIES.iter().filter(|(named, _)| *named == c).map(|(_, name)| (*name).to_owned());
    let numbers = [("#", code.to_string()), ("#x", format!("{code:x}"))];
    let mut bodies: Vec<usize> = Vec::new();
    for &at in introduced {
        for name in names.clone() {
            bodies.extend(ends_of(&name, text, at, layers).into_iter().flatten());
        }
        for (mark, digits) in &numbers {
            for at in ends_of(mark, text, at, layers).into_iter().flatten() {
                let at = at + text[at..].bytes().take(MAX_ZEROS).take_while(|&byte| byte == b'0').count();
                bodies.extend(ends_of(digits, text, at, layers).into_iter().flatten());
            }
        }
    }
    // Browsers read an entity without its semicolon too, so both ends are possible.
    for at in bodies {
        ends.extend(ends_of(";", text, at, layers).into_iter().flatten());
        ends.push(at);
    }
}

/// Returns the possible ends of `literal` at `at`, in any case and escaped in up to `layers`; `None` if it is not
/// there.
fn ends_of(literal: &str, text: &str, at: usize, layers: usize) -> Option<Vec<usize>> {
    let mut ends = vec![at];
    for c in literal.chars() {
        let mut next = Vec::new();
        for &at in &ends {
            spelled(c, text, at, layers, &mut next);
            // The digits of escapes may be in either case.
            if c.is_ascii_lowercase() {
                spelled(c.to_ascii_uppercase(), text, at, layers, &mut next);
            }
        }
        ends = bounded(next)?;
    }
    Some(ends)
}

/// Returns the distinct ends in order, at most [`MAX_ENDS`] of them; `None` if there is none.
fn bounded(mut ends: Vec<usize>) -> Option<Vec<usize>> {
    ends.sort_unstable();
    ends.dedup();
    ends.truncate(MAX_ENDS);
    (!ends.is_empty()).then_some(ends)
}

/// Returns the UTF-16 code units of `c` in hex, each after `mark`.
fn utf16(c: char, mark: &str) -> String {
    c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("{mark}{unit:04x}")).collect()
}

/// The most layers of escapes. A request's target inside JSON inside an HTML page has three.
const MAX_LAYERS: usize = 3;

/// The most possible ends of one piece. More than two are rare; the bound limits the time for a hostile text.
const MAX_ENDS: usize = 16;

/// The most leading zeros of a number in HTML. More are legal, but no program writes them.
const MAX_ZEROS: usize = 8;

/// The HTML entities of ASCII characters.
const ENTITIES: &[(char, &str)] = &[
    ('&', "amp"),
    ('<', "lt"),
    ('>', "gt"),
    ('"', "quot"),
    ('\'', "apos"),
    ('/', "sol"),
    ('\\', "bsol"),
    ('+', "plus"),
    ('=', "equals"),
    ('%', "percnt"),
    ('#', "num"),
    ('$', "dollar"),
    ('@', "commat"),
    ('!', "excl"),
    ('*', "ast"),
    (':', "colon"),
    (';', "semi"),
    (',', "comma"),
    ('.', "period"),
    ('?', "quest"),
    ('(', "lpar"),
    (')', "rpar"),
    ('[', "lsqb"),
    ('[', "lbrack"),
    (']', "rsqb"),
    (']', "rbrack"),
    ('{', "lcub"),
    ('{', "lbrace"),
    ('}', "rcub"),
    ('}', "rbrace"),
    ('|', "verbar"),
    ('|', "vert"),
    ('_', "lowbar"),
    ('^', "hat"),
    ('`', "grave"),
    ('\n', "newline"),
    ('\t', "tab"),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "sk AbC/+=9&x\"é~";

    fn hidden(text: &str, secret: &str) -> Option<String> {
        mask_secrets(text, [secret].into_iter())
    }

    /// One of the ways in which programs write a character.
    fn spell(c: char, way: u8) -> String {
        let code = u32::from(c);
        let percent = |upper: bool| -> String {
            let bytes = c.to_string().into_bytes();
            let escape = |byte: u8| if upper { format!("%{byte:02X}") } else { format!("%{byte:02x}") };
            bytes.into_iter().map(escape).collect()
        };
        match way {
            0 => percent(true),
            1 => percent(false),
            2 => format!("\\u{code:04X}"),
            3 => format!("\\u{code:04x}"),
            4 => format!("&#{code};"),
            5 => format!("&#x{code:X};"),
            6 => format!("&#x00{code:x};"),
            7 if c.is_ascii_punctuation() => format!("\\{c}"),
            8 if c == ' ' => "+".to_owned(),
            9 => ENTITIES.iter().find(|(named, _)| *named == c).map_or(c.into(), |(_, n)| format!("&{n};")),
            _ => c.to_string(),
        }
    }

    #[test]
    fn a_secret_is_found_in_the_usual_escapes() {
        let (json, secret) = (serde_json::to_string(SECRET).unwrap(), SECRET);
        let html = secret.replace('&', "&amp;").replace('"', "&quot;");
        let all = percent_encoding::NON_ALPHANUMERIC;
        let percent = percent_encoding::utf8_percent_encode(secret, all).to_string();
        let twice = percent.replace('%', "%25");
        let html_in_json = html.replace('&', "\\u0026");
        let solidus = json.trim_matches('"').replace('/', "\\/");
        let form = percent.replace("%20", "+").to_lowercase().replace("abc", "AbC");
        let spellings =
            [secret, &html, &percent, &twice, &html_in_json, &solidus, &form, json.trim_matches('"')];
        for spelling in spellings {
            let text = format!("you sent {spelling}, did you not");
            assert_eq!(hidden(&text, secret).as_deref(), Some("you sent ***, did you not"), "{spelling}");
        }
    }

    #[test]
    fn other_texts_stay() {
        for text in ["", "nothing of it", "sk AbC/+=9&x", "SK ABC/+=9&X\"É~", "%%%&&&\\\\\\", "%4"] {
            assert_eq!(hidden(text, SECRET), None, "{text}");
        }
        assert_eq!(hidden("a cat and a bat", "a"), None);
        assert_eq!(hidden("a cat and a bat", "cat"), None);
        assert_eq!(hidden("many cats", "cats").as_deref(), Some("many ***"));
        assert_eq!(hidden("anything", ""), None);
    }

    #[test]
    fn a_secret_that_looks_escaped_is_found_as_it_is_and_escaped_again() {
        let secret = "a%2Fb&amp;c\\u0041";
        for spelling in [secret, "a%252Fb%26amp%3Bc%5Cu0041", "a%2Fb&amp;amp;c\\\\u0041"] {
            assert_eq!(hidden(&format!("<{spelling}>"), secret).as_deref(), Some("<***>"), "{spelling}");
        }
    }

    #[test]
    fn every_occurrence_goes_and_the_first_of_several_secrets_counts() {
        let clean = mask_secrets("key1-long key1 key1-long", ["key1-long", "key1"].into_iter());
        assert_eq!(clean.as_deref(), Some("*** *** ***"));
    }

    proptest! {
        #[test]
        fn any_mixture_of_spellings_is_found(
            secret in "[ -~é]{4,24}",
            ways in prop::collection::vec(0u8..14, 24),
            before in "[a-z ]{0,9}",
            after in "[a-z ]{0,9}",
        ) {
            let spelled: String = secret.chars().zip(&ways).map(|(c, way)| spell(c, *way)).collect();
            let text = format!("{before}<{spelled}>{after}");
            let clean = hidden(&text, &secret);
            prop_assert!(clean.is_some(), "{secret:?} as {spelled:?}");
            prop_assert!(!clean.unwrap().contains(&spelled));
        }

        #[test]
        fn no_text_panics(text in ".{0,200}", secret in ".{0,20}") {
            if let Some(clean) = hidden(&text, &secret) {
                prop_assert!(text.len() >= 4 && clean.contains(MASK));
            }
        }
    }
}
