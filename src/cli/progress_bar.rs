//! The lines of the progress display at the bottom of the terminal.
//!
//! The cursor rests at the first column of the first line. A terminal that wraps long lines anew when it becomes
//! narrower moves the cursor along with that line, so "erase from the cursor to the end of the screen" (ECMA-48, ED)
//! removes every line, into however many rows the terminal has wrapped it. A cursor behind the last line would be an
//! unknown number of rows away from the first one: copies of old lines would stay.
//!
//! Frames go through the queue of standard error, so that a stopped terminal (Ctrl-S) does not block the uploads.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::termios::tcgetwinsize;

use super::display_width::fit;
use super::output::{Output, PendingWrite, Stream, Urgency};
use super::progress_view::{Screen, most_lines};

/// The progress display on standard error. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct ProgressBar {
    output: Output,
    state: Arc<Mutex<BarState>>,
}

#[derive(Debug, Default)]
struct BarState {
    is_active: bool,
    is_utf8: bool,
    lines: Vec<String>,
    drawn_at: Option<Instant>,
}

impl ProgressBar {
    /// Creates a display that is not active: it passes all texts on unchanged.
    pub(super) fn new(output: Output) -> ProgressBar {
        ProgressBar { output, state: Arc::default() }
    }

    /// Activates the display.
    pub(super) fn start(&self, is_utf8: bool, now: Instant) {
        // The first frame comes after an interval: earlier it would show that nothing has begun.
        *self.state() = BarState { is_active: true, is_utf8, lines: Vec::new(), drawn_at: Some(now) };
    }

    /// Returns the size of the terminal if a new frame is due.
    pub(super) fn due_frame(&self, now: Instant) -> Option<Screen> {
        let state = self.state();
        let is_due = state.drawn_at.is_none_or(|at| now.saturating_duration_since(at) >= FRAME_INTERVAL);
        (state.is_active && is_due).then(|| screen(state.is_utf8))
    }

    /// Draws a frame in place of the last one.
    pub(super) fn draw(&self, lines: Vec<String>, now: Instant) {
        let mut state = self.state();
        if state.is_active {
            state.lines = lines;
            state.drawn_at = Some(now);
            let _ = self.output.push(Stream::Err, state.frame().into_bytes(), Urgency::Passing);
        }
    }

    /// Queues a text, which appears above the display. `shares_terminal` is `true` if the stream is a terminal.
    pub(super) fn write(
        &self,
        stream: Stream,
        text: String,
        urgency: Urgency,
        shares_terminal: bool,
    ) -> PendingWrite {
        let state = self.state();
        if !state.is_active || !shares_terminal {
            return self.output.push(stream, text.into_bytes(), urgency);
        }
        match stream {
            Stream::Err => {
                let text = format!("{ERASE}{text}{}", state.frame());
                self.output.push(stream, text.into_bytes(), urgency)
            }
            // Both streams lead to one terminal, and so to one queue, which keeps the three texts in order.
            Stream::Out => {
                let _ = self.output.push(Stream::Err, ERASE.into(), urgency);
                let write = self.output.push(stream, text.into_bytes(), urgency);
                let _ = self.output.push(Stream::Err, state.frame().into_bytes(), Urgency::Passing);
                write
            }
        }
    }

    /// Removes the display.
    pub(super) fn clear(&self) {
        let mut state = self.state();
        if state.is_active {
            *state = BarState::default();
            // Also at a full queue: the display would stay on the screen after the end of the process.
            let _ = self.output.push(Stream::Err, ERASE.into(), Urgency::Last);
        }
    }

    fn state(&self) -> MutexGuard<'_, BarState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BarState {
    /// Returns the control sequences and texts that draw the lines, cut to the current size of the terminal.
    fn frame(&self) -> String {
        frame(&self.lines, screen(self.is_utf8))
    }
}

fn frame(lines: &[String], screen: Screen) -> String {
    // More lines than rows, after the terminal has become lower, would scroll the first ones out.
    let most = most_lines(screen.rows);
    let lines: Vec<String> =
        lines.iter().take(most).map(|line| fit(line, screen.columns) + "\x1b[K").collect();
    if lines.is_empty() {
        return String::new();
    }
    let up = if lines.len() > 1 { format!("\x1b[{}A", lines.len() - 1) } else { String::new() };
    // Without automatic wrapping (DECAWM) a terminal that has just become narrower cuts the lines, too. Lines are
    // overwritten before the rest is erased, because a frame that is erased first flickers.
    format!("\r\x1b[?7l{}\x1b[J{up}\r\x1b[?7h", lines.join("\r\n"))
}

/// Returns the size of the terminal, less the last column: some terminals wrap after a character in it.
fn screen(is_utf8: bool) -> Screen {
    let size = tcgetwinsize(io::stderr()).ok();
    // A serial console reports 0 columns and 0 rows.
    let set = |cells: Option<u16>, usual: u16| usize::from(cells.filter(|n| *n > 0).unwrap_or(usual));
    let columns = set(size.map(|size| size.ws_col), USUAL_COLUMNS) - 1;
    Screen { columns, rows: set(size.map(|size| size.ws_row), USUAL_ROWS), is_utf8 }
}

/// Returns `true` if the locale uses UTF-8. The first variable that is set decides (setlocale(3)).
pub(super) fn is_utf8(environment: impl Fn(&str) -> Option<String>) -> bool {
    let set = |name| environment(name).filter(|locale| !locale.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// Returns to the first column and erases the rest of the screen.
const ERASE: &str = "\r\x1b[J";

/// The interval between frames. Numbers that change faster cannot be read.
const FRAME_INTERVAL: Duration = Duration::from_millis(190);

const USUAL_COLUMNS: u16 = 80;
const USUAL_ROWS: u16 = 24;

#[cfg(test)]
mod tests {
    use super::*;

    const SCREEN: Screen = Screen { columns: 9, rows: 6, is_utf8: true };

    fn lines(count: usize, columns: usize) -> Vec<String> {
        (0..count).map(|number| format!("{number}").repeat(columns)).collect()
    }

    /// Returns a terminal of 6 rows and 10 columns.
    fn terminal() -> vt100::Parser {
        vt100::Parser::new(6.try_into().unwrap(), 10.try_into().unwrap(), 100)
    }

    fn shown(terminal: &vt100::Parser) -> Vec<String> {
        terminal.screen().rows(0, 10).filter(|row| !row.is_empty()).collect()
    }

    #[test]
    fn a_frame_replaces_the_last_one_at_the_bottom_of_the_screen() {
        let mut terminal = terminal();
        terminal.process(b"one\r\ntwo\r\nthree\r\nfour\r\nfive\r\n");
        terminal.process(frame(&lines(3, 4), SCREEN).as_bytes());
        assert_eq!(shown(&terminal), ["three", "four", "five", "0000", "1111", "2222"]);
        terminal.process(frame(&lines(2, 2), SCREEN).as_bytes());
        assert_eq!(shown(&terminal), ["three", "four", "five", "00", "11"]);
        terminal.process(format!("{ERASE}six\r\n{}", frame(&lines(2, 3), SCREEN)).as_bytes());
        assert_eq!(shown(&terminal), ["three", "four", "five", "six", "000", "111"]);
        terminal.process(ERASE.as_bytes());
        assert_eq!(shown(&terminal), ["three", "four", "five", "six"]);
    }

    #[test]
    fn a_frame_is_cut_to_the_current_size() {
        let mut terminal = terminal();
        terminal.process(frame(&lines(2, 25), SCREEN).as_bytes());
        assert_eq!(shown(&terminal), ["000000000", "111111111"]);
        terminal.process(frame(&lines(9, 2), SCREEN).as_bytes());
        assert_eq!(shown(&terminal), ["00", "11", "22"]);
    }

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
}
