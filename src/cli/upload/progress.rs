//! How far all uploads of a command are, together.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ringlift::Progress;

use crate::cli::events::{Event, ProgressEvent};
use crate::cli::screen::Screen;

use super::plan::Item;

/// What every upload said last.
#[derive(Debug)]
pub(super) struct Board {
    total_bytes: Option<u64>,
    files: BTreeMap<usize, File>,
    begun: Instant,
    line_due: Instant,
}

#[derive(Debug)]
struct File {
    name: String,
    /// The bytes of a name that is not UTF-8.
    odd_name: Option<Vec<u8>>,
    begun: Instant,
    progress: Progress,
    /// Changed since it was last told.
    is_news: bool,
}

impl Board {
    pub(super) fn new(total_bytes: Option<u64>) -> Board {
        let now = Instant::now();
        Board { total_bytes, files: BTreeMap::new(), begun: now, line_due: now + BETWEEN_LINES }
    }

    pub(super) fn total_bytes(&self) -> Option<u64> {
        self.total_bytes
    }

    /// Takes note of how far the upload of an item is; gives its video when that is news.
    pub(super) fn update(&mut self, item: &Item, progress: Progress) -> Option<String> {
        let file = self.files.entry(item.index).or_insert_with(|| File::new(item));
        let known = file.progress.video_id.is_some();
        let video_id = progress.video_id.clone();
        file.progress = progress;
        file.is_news = true;
        video_id.filter(|_| !known)
    }

    /// Moves the bar; tells those who read lines now and then.
    pub(super) fn show(&mut self, screen: &Screen) {
        if !screen.output().has_room() {
            // What nobody reads would only pile up: the next look says it better.
            return;
        }
        let bytes = self.sum(|progress| progress.sent_bytes);
        let retries = self.retries();
        screen.advance(bytes, if retries > 0 { format!(", {retries} retries") } else { String::new() });
        if Instant::now() < self.line_due {
            return;
        }
        self.line_due = Instant::now() + BETWEEN_LINES;
        screen.advance_line(bytes, self.total_bytes, self.begun.elapsed());
        for file in self.files.values_mut().filter(|file| file.is_news) {
            file.is_news = false;
            let event = ProgressEvent::new(&file.name, &file.progress, file.begun.elapsed());
            let _ = screen.event_about(file.odd_name.as_deref(), &Event::Progress(event));
        }
    }

    /// The video of the item at `index`, once it is known.
    pub(super) fn video_id(&self, index: usize) -> Option<&str> {
        self.files.get(&index)?.progress.video_id.as_deref()
    }

    /// Attempts that were repetitions, of all uploads.
    pub(super) fn retries(&self) -> u32 {
        self.files.values().map(|file| file.progress.retries).sum()
    }

    /// Bytes that were sent again, of all uploads.
    pub(super) fn resent_bytes(&self) -> u64 {
        self.sum(|progress| progress.resent_bytes)
    }

    fn sum(&self, count: impl Fn(&Progress) -> u64) -> u64 {
        self.files.values().map(|file| count(&file.progress)).sum()
    }
}

impl File {
    fn new(item: &Item) -> File {
        File {
            name: item.name.clone(),
            odd_name: item.odd_name().map(<[u8]>::to_owned),
            begun: Instant::now(),
            progress: Progress::default(),
            is_news: true,
        }
    }
}

/// Between two lines about the same file.
const BETWEEN_LINES: Duration = Duration::from_secs(1);
