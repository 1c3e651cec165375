//! The progress bar, drawn into the queue of standard error, so that a stopped terminal (Ctrl-S) does not
//! block the uploads.

use std::io;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::{ProgressDrawTarget, ProgressStyle, TermLike};
use rustix::termios::tcgetwinsize;

use super::output::{Output, Stream, Urgency};

/// Returns a draw target that writes to the queue of standard error.
pub(super) fn target(output: &Output) -> ProgressDrawTarget {
    let terminal = Terminal { output: output.clone(), picture: Mutex::default() };
    ProgressDrawTarget::term_like_with_hz(Box::new(terminal), PICTURES_PER_SECOND)
}

/// Returns the style of the bar. Block characters are used only on a UTF-8 terminal.
pub(super) fn style(has_length: bool, is_utf8: bool) -> Option<ProgressStyle> {
    let template = if has_length {
        "{bar:30} {percent:>3}% {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left{msg}"
    } else {
        "{spinner} {binary_bytes}, {binary_bytes_per_sec}, {elapsed}{msg}"
    };
    let style = ProgressStyle::with_template(template).ok()?;
    Some(if is_utf8 { style } else { style.progress_chars("#>-").tick_chars("-\\|/ ") })
}

/// Returns `true` if the locale uses UTF-8. The first variable that is set decides (setlocale(3)).
pub(super) fn is_utf8(environment: impl Fn(&str) -> Option<String>) -> bool {
    let set = |name| environment(name).filter(|locale| !locale.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// Collects the control sequences of one frame until the frame is flushed.
#[derive(Debug)]
struct Terminal {
    output: Output,
    picture: Mutex<String>,
}

impl Terminal {
    fn picture(&self) -> MutexGuard<'_, String> {
        self.picture.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw(&self, text: &str) -> io::Result<()> {
        self.picture().push_str(text);
        Ok(())
    }

    /// Moves the cursor `n` places by a control sequence (ECMA-48, CUU to CUB).
    fn go(&self, n: usize, direction: char) -> io::Result<()> {
        if n == 0 { Ok(()) } else { self.draw(&format!("\x1b[{n}{direction}")) }
    }
}

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        let size = tcgetwinsize(io::stderr()).ok();
        size.map(|size| size.ws_col).filter(|columns| *columns > 0).unwrap_or(USUAL_COLUMNS)
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.go(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.go(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.go(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.go(n, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.draw(text)?;
        self.draw("\n")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.draw(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.draw("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let picture = mem::take(&mut *self.picture());
        if !picture.is_empty() {
            let _ = self.output.push(Stream::Err, picture.into_bytes(), Urgency::Passing);
        }
        Ok(())
    }
}

const PICTURES_PER_SECOND: u8 = 20;
const USUAL_COLUMNS: u16 = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_locale_variable_decides_about_utf8() {
        let with = |set: &'static [(&str, &str)]| {
            is_utf8(move |name| {
                set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(with(&[("LANG", "de_DE.UTF-8")]));
        assert!(with(&[("LC_ALL", ""), ("LC_CTYPE", "C.utf8")]));
        assert!(!with(&[("LC_ALL", "C"), ("LANG", "de_DE.UTF-8")]));
        assert!(!with(&[]));
    }

    #[test]
    fn bar_uses_ascii_without_utf8() {
        for has_length in [true, false] {
            assert!(style(has_length, false).is_some() && style(has_length, true).is_some());
        }
    }
}
