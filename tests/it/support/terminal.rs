//! A terminal for the command: a pseudo-terminal and an emulator of its screen.

use std::fs::File;
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// A terminal that shows the output of a command.
pub struct Terminal {
    master: OwnedFd,
    child: Child,
    emulator: vt100::Parser,
    /// Bytes that are not yet shown, because they are part of a frame.
    pending: Vec<u8>,
    /// The lines of every frame of the progress display.
    pub frames: Vec<Vec<String>>,
    /// Everything that the command has written.
    pub raw: Vec<u8>,
}

impl Terminal {
    /// Starts the command with a terminal of this size as its three standard streams.
    pub fn start(command: &mut Command, rows: u16, columns: u16) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        tcsetwinsize(&master, size(rows, columns)).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = || File::options().read(true).write(true).open(&name).unwrap();
        command.env("TERM", "xterm-256color").env("LANG", "C.UTF-8");
        let child = command.stdin(slave()).stdout(slave()).stderr(slave()).spawn().unwrap();
        // The command holds the other end: without its copies here the last read fails once the child ends.
        command.stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let emulator = vt100::Parser::new(cells(rows), cells(columns), 10_000);
        Terminal { master, child, emulator, pending: Vec::new(), frames: Vec::new(), raw: Vec::new() }
    }

    /// Changes the size of the terminal.
    pub fn resize(&mut self, rows: u16, columns: u16) {
        tcsetwinsize(&self.master, size(rows, columns)).unwrap();
        self.emulator.set_size(cells(rows), cells(columns));
    }

    /// Reads until `count` further frames were drawn. Returns `false` if the command ends before.
    pub fn show_frames(&mut self, count: usize) -> bool {
        let wanted = self.frames.len() + count;
        while self.frames.len() < wanted {
            if !self.read() {
                return false;
            }
        }
        true
    }

    /// Reads until the command ends, and returns its exit code.
    pub fn end(&mut self) -> Option<i32> {
        while self.read() {}
        self.emulator.process(&std::mem::take(&mut self.pending));
        self.child.wait().unwrap().code()
    }

    /// Returns the rows on the screen and those that have scrolled out of it, without empty ones.
    pub fn rows(&mut self) -> Vec<String> {
        let (_, columns) = self.emulator.screen().size();
        let screen = self.emulator.screen_mut();
        let mut rows = Vec::new();
        for offset in (1..=screen.scrollback_len()).rev() {
            screen.set_scrollback(offset);
            rows.extend(screen.rows(0, columns.get()).next());
        }
        screen.set_scrollback(0);
        rows.extend(screen.rows(0, columns.get()));
        rows.retain(|row| !row.is_empty());
        rows
    }

    /// Reads once. Returns `false` at the end.
    fn read(&mut self) -> bool {
        let started = Instant::now();
        let mut ready = [PollFd::new(&self.master, PollFlags::IN)];
        let timeout = rustix::time::Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        poll(&mut ready, Some(&timeout)).unwrap();
        if started.elapsed() >= PATIENCE {
            kill_process(Pid::from_child(&self.child), Signal::KILL).unwrap();
            panic!("no output for {PATIENCE:?}: {}", String::from_utf8_lossy(&self.raw));
        }
        let mut bytes = [0; 4096];
        // The read fails (EIO) once no process has the other end open.
        let read = rustix::io::read(&self.master, &mut bytes).unwrap_or(0);
        self.raw.extend(&bytes[..read]);
        self.pending.extend(&bytes[..read]);
        self.show();
        read > 0
    }

    /// Shows the pending bytes up to an incomplete frame. The emulator always wraps, so lines between the sequences
    /// that switch wrapping off and on (DECAWM) are cut here.
    fn show(&mut self) {
        while let Some(start) = find(&self.pending, WRAP_OFF) {
            let Some(end) = find(&self.pending[start..], WRAP_ON) else {
                let before: Vec<u8> = self.pending.drain(..start).collect();
                return self.emulator.process(&before);
            };
            let rest = self.pending.split_off(start + end + WRAP_ON.len());
            let frame = std::mem::replace(&mut self.pending, rest);
            self.emulator.process(&frame[..start]);
            let frame = String::from_utf8(frame[start + WRAP_OFF.len()..start + end].to_vec()).unwrap();
            let lines: Vec<&str> = frame.split("\r\n").collect();
            self.frames.push(lines.iter().map(|line| plain(line)).collect());
            let (_, columns) = self.emulator.screen().size();
            let cut = |line: &&str| {
                let end = line.find('\u{1b}').unwrap_or(line.len());
                let text: String = line[..end].chars().take(columns.get().into()).collect();
                text + &line[end..]
            };
            self.emulator.process(lines.iter().map(cut).collect::<Vec<_>>().join("\r\n").as_bytes());
        }
        // The last bytes may be the beginning of the sequence.
        let kept = self.pending.iter().rev().take(WRAP_OFF.len()).position(|byte| *byte == 0x1b);
        let shown = self.pending.len() - kept.map_or(0, |kept| kept + 1);
        let shown: Vec<u8> = self.pending.drain(..shown).collect();
        self.emulator.process(&shown);
    }
}

/// Returns a line without control sequences.
fn plain(line: &str) -> String {
    let mut plain = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => drop(chars.by_ref().skip(1).find(char::is_ascii_alphabetic)),
            '\r' => {}
            c => plain.push(c),
        }
    }
    plain
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn cells(n: u16) -> NonZeroU16 {
    n.try_into().unwrap()
}

const WRAP_OFF: &[u8] = b"\x1b[?7l";
const WRAP_ON: &[u8] = b"\x1b[?7h";

/// Longer than the command is silent on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);
