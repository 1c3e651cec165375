//! Escaping of texts for terminals and of file names for shells.

use std::borrow::Cow;
use std::fmt::Write;
use std::path::Path;

/// Returns the text with terminal control characters and bidirectional marks escaped, line feeds included.
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, is_obeyed)
}

/// Like [`visible`], but keeps line feeds and tabs.
pub(super) fn visible_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_obeyed(c) && c != '\n' && c != '\t')
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_escaped(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// Returns `true` for C0, DEL and C1, the marks of the Unicode bidirectional algorithm (UAX 9), and line and
/// paragraph separators.
fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns a path as one word of a shell command line. Bytes that are not UTF-8 and control characters use
/// the form `$'...'`, which bash, zsh, ksh and POSIX.1-2024 support.
pub(super) fn quoted(path: &Path) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    match path.to_str() {
        Some(text) if !text.is_empty() && text.chars().all(is_plain) => text.to_owned(),
        Some(text) if !text.contains(is_obeyed) => format!("'{}'", text.replace('\'', r"'\''")),
        _ => format!("$'{}'", escaped_bytes(path.as_os_str().as_encoded_bytes())),
    }
}

/// Escapes with three octal digits per byte, because shells disagree about the end of a `\x` escape.
fn escaped_bytes(bytes: &[u8]) -> String {
    let mut word = String::new();
    let octal = |bytes: &[u8], word: &mut String| {
        for byte in bytes {
            let _ = write!(word, "\\{byte:03o}");
        }
    };
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\'' | '\\' => word.extend(['\\', c]),
                c if is_obeyed(c) => octal(c.encode_utf8(&mut [0; 4]).as_bytes(), &mut word),
                c => word.push(c),
            }
        }
        octal(chunk.invalid(), &mut word);
    }
    word
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_reads_back_every_name() {
        let names: [&[u8]; 9] = [
            b"/films/a-1.mp4",
            b"it's a film",
            b"bad\xff.mp4",
            b"two\nlines",
            b"\x1b[2J7",
            "\u{202e}4pm".as_bytes(),
            b"back\\slash\xfe'",
            "d\u{e9}j\u{e0} vu".as_bytes(),
            b"",
        ];
        for name in names {
            let word = quoted(Path::new(OsStr::from_bytes(name)));
            assert!(!word.contains(is_obeyed), "{word:?}");
            let Ok(output) = Command::new("bash").arg("-c").arg(format!("printf %s {word}")).output() else {
                return eprintln!("skipped: no bash here");
            };
            assert_eq!(output.stdout, name, "{word}");
        }
        assert_eq!(quoted(Path::new("/films/a-1.mp4")), "/films/a-1.mp4");
        assert_eq!(quoted(Path::new("it's a film")), r"'it'\''s a film'");
    }

    #[test]
    fn terminal_control_characters_are_escaped() {
        assert_eq!(visible("a\u{1b}[2J\n\u{9b}\u{202e}"), "a\\u{1b}[2J\\n\\u{9b}\\u{202e}");
        assert_eq!(visible_lines("two\n\tlines\r"), "two\n\tlines\\r");
        assert!(matches!(visible("d\u{e9}j\u{e0} vu"), Cow::Borrowed(_)));
    }
}
