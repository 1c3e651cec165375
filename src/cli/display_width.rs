//! Widths of texts in columns of a terminal.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Returns the columns that a text takes on a terminal.
///
/// Terminals disagree about sequences such as flags and joined emoji: the larger of both ways to count is returned.
pub(super) fn width(text: &str) -> usize {
    UnicodeWidthStr::width(text).max(text.chars().map(char_width).sum())
}

/// Returns the text, cut at its end to at most `columns`.
pub(super) fn fit(text: &str, columns: usize) -> String {
    let mut taken = 0;
    let does_not_fit = |&(_, c): &(usize, char)| {
        taken += char_width(c);
        taken > columns
    };
    let mut end = text.char_indices().find(does_not_fit).map_or(text.len(), |(at, _)| at);
    // A sequence may be wider than its characters.
    while width(&text[..end]) > columns {
        end = text[..end].char_indices().next_back().map_or(0, |(at, _)| at);
    }
    text[..end].to_owned()
}

/// Returns the text in at most `columns`, with `mark` in place of its middle if it is wider. Returns `None` if there
/// is no room for the mark and a character on both sides.
pub(super) fn middle_cut(text: &str, columns: usize, mark: &str) -> Option<String> {
    if width(text) <= columns {
        return Some(text.to_owned());
    }
    let mut kept = columns.checked_sub(width(mark)).filter(|kept| *kept >= 2)?;
    loop {
        // The end has the extension, and often the number of a series: it gets the larger half.
        let (head, tail) = (kept / 2, kept - kept / 2);
        let cut = format!("{}{mark}{}", fit(text, head), last_columns(text, tail));
        if width(&cut) <= columns || kept == 0 {
            return Some(fit(&cut, columns));
        }
        kept -= 1;
    }
}

/// Returns the text with spaces before it, at least `columns` wide.
pub(super) fn padded(text: &str, columns: usize) -> String {
    format!("{}{text}", " ".repeat(columns.saturating_sub(width(text))))
}

/// Returns the end of the text in at most `columns`.
fn last_columns(text: &str, columns: usize) -> &str {
    let mut start = text.len();
    let mut taken = 0;
    for (at, c) in text.char_indices().rev() {
        taken += char_width(c);
        if taken > columns {
            break;
        }
        // A combining mark does not begin the end: it belongs to the character before it.
        if char_width(c) > 0 {
            start = at;
        }
    }
    &text[start..]
}

fn char_width(c: char) -> usize {
    UnicodeWidthChar::width(c).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_loses_its_middle_and_keeps_its_ends() {
        let name = "holiday-in-the-mountains-0042.mp4";
        assert_eq!(middle_cut(name, 33, "…").as_deref(), Some(name));
        assert_eq!(middle_cut(name, 20, "…").as_deref(), Some("holiday-i…s-0042.mp4"));
        assert_eq!(middle_cut(name, 20, "...").as_deref(), Some("holiday-...-0042.mp4"));
        assert_eq!(middle_cut(name, 2, "…"), None);
    }

    #[test]
    fn wide_characters_count_twice_and_marks_stay_with_their_letter() {
        assert_eq!(width("映画.mp4"), 8);
        assert_eq!(middle_cut("映画映画映画.mp4", 9, "…").as_deref(), Some("映画….mp4"));
        assert_eq!(
            middle_cut("a\u{301}b\u{301}c\u{301}d\u{301}", 3, "…").as_deref(),
            Some("a\u{301}…d\u{301}")
        );
    }

    proptest! {
        #[test]
        fn a_cut_text_is_never_wider_than_its_room(text in "\\PC{0,40}", columns in 0usize..60) {
            prop_assert!(width(&fit(&text, columns)) <= columns);
            if let Some(cut) = middle_cut(&text, columns, "…") {
                prop_assert!(width(&cut) <= columns, "{cut:?}");
            }
        }
    }
}
