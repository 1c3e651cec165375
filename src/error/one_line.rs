//! Text from outside, safe to show on a terminal.

use std::fmt;

/// Shows a text from outside on one line, so that it cannot break the line or control a terminal.
///
/// Control characters (C0, DEL, C1), line separators and marks that change the direction of writing become
/// U+FFFD.
#[derive(Clone, Copy, Debug)]
pub struct OneLine<'a>(pub &'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |c: char| if is_unprintable(c) { '\u{fffd}' } else { c };
        self.0.chars().try_for_each(|c| fmt::Write::write_char(f, shown(c)))
    }
}

/// Returns `true` for control characters, line separators and marks that change the direction of writing.
pub(crate) fn is_unprintable(c: char) -> bool {
    // These marks are no control characters of Unicode, and still reorder or break a line.
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
