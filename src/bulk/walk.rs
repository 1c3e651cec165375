//! The files of a folder, as a stream in constant memory.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::io;
use std::iter::FusedIterator;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use walkdir::{DirEntry, WalkDir};

use super::file_stamp::FileStamp;
use super::filter::{Candidate, Filter, FilterTally, Verdict};

/// The extensions of the files that are taken from a folder, in lower case.
pub const VIDEO_EXTENSIONS: [&str; 17] = [
    "mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "mts", "m2ts", "mxf", "wmv", "flv",
    "3gp", "ogv", "vob",
];

/// The options of a walk.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct WalkOptions {
    /// `true` to take files of any extension. Hidden and partial files are left out all the same.
    pub all_files: bool,
    /// `true` to follow symbolic links to files and folders. The source itself is always followed.
    pub follow_links: bool,
    /// `true` to sort each folder by name, which needs memory for the names of one folder at each depth.
    pub is_sorted: bool,
    /// The greatest depth; 1 is the files directly in the source. `None` is no limit.
    pub max_depth: Option<usize>,
    /// The filter, which applies to paths relative to the source.
    pub filter: Option<Arc<Filter>>,
    /// The time from which ages are measured; needed for a filter with ages.
    pub now: Option<SystemTime>,
    /// Folders that are not entered, such as the one that finished files are moved to.
    pub skipped_folders: Vec<PathBuf>,
}

/// A file that a walk found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FoundFile {
    /// The path: that of the source, and the relative one.
    pub path: PathBuf,
    /// The path relative to the source; the name if the source is the file.
    pub relative: PathBuf,
    /// The length, the time of the last write, and the identity.
    pub stamp: FileStamp,
}

/// The numbers of entries that a walk did not return as files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WalkCounts {
    /// The files that were returned.
    pub files: u64,
    /// The files without the extension of a video.
    pub ignored: u64,
    /// The hidden files and folders, whose names begin with a dot, and files that are being written:
    /// `*.part`, `*.tmp` and `*.crdownload`.
    pub hidden: u64,
    /// The symbolic links that were not followed.
    pub links: u64,
    /// The FIFOs, sockets and devices. They are never opened.
    pub special: u64,
    /// The verdicts of the filter.
    pub filter: FilterTally,
}

/// An entry that cannot be examined. The walk goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalkError {
    /// The source does not exist.
    #[error("{}: there is no such file or folder", .path.display())]
    Missing {
        /// The path of the source.
        path: PathBuf,
    },
    /// The source is a FIFO, a socket or a device.
    #[error("{}: is neither a file nor a folder; a pipe is uploaded as standard input", .path.display())]
    Special {
        /// The path of the source.
        path: PathBuf,
    },
    /// A symbolic link leads to a folder above it.
    #[error("{}: leads back to {}; the link is not followed", .path.display(), .ancestor.display())]
    Loop {
        /// The path of the link.
        path: PathBuf,
        /// The folder above it.
        ancestor: PathBuf,
    },
    /// The entry disappeared while the folder was read, or is a symbolic link to nothing.
    #[error("{}: is gone, or a link to nothing", .path.display())]
    Vanished {
        /// The path of the entry.
        path: PathBuf,
    },
    /// The entry cannot be read.
    #[error("{}: cannot be read: {source}", .path.display())]
    Unreadable {
        /// The path of the entry.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// A walk through a source: a file, or a folder with all that is below it.
///
/// A file that is named itself is returned whatever its name. Reading blocks; the file descriptors and the memory are
/// bounded, whatever the number of files.
///
/// ```no_run
/// use ringlift::bulk::{Walk, WalkOptions};
///
/// let mut walk = Walk::new("/films", WalkOptions::default());
/// for found in walk.by_ref() {
///     match found {
///         Ok(file) => println!("{}: {} bytes", file.path.display(), file.stamp.bytes),
///         Err(error) => eprintln!("{error}"),
///     }
/// }
/// println!("{} files are no videos", walk.counts().ignored);
/// ```
#[derive(Debug)]
pub struct Walk {
    root: PathBuf,
    /// The entry below `root` that is walked instead of all of it.
    start: Option<PathBuf>,
    options: WalkOptions,
    skipped: Vec<(u64, u64)>,
    stage: Stage,
    counts: WalkCounts,
}

/// One step of a walk.
#[derive(Debug)]
pub(super) enum WalkStep {
    File(FoundFile),
    /// A folder that is entered with the next step. Its entries have not been read yet.
    Folder(PathBuf),
    Failed(WalkError),
}

#[derive(Debug)]
enum Stage {
    NotBegun,
    Folder(Box<walkdir::IntoIter>),
    Over,
}

impl Walk {
    /// Prepares a walk through `root`, which is read when the first file is requested.
    pub fn new(root: impl Into<PathBuf>, options: WalkOptions) -> Walk {
        // By identity, because the same folder may be reached by another path.
        let skipped = options.skipped_folders.iter().filter_map(|folder| folder.metadata().ok());
        let skipped = skipped.map(|folder| (folder.dev(), folder.ino())).collect();
        let (root, start) = (root.into(), None);
        Walk { root, start, options, skipped, stage: Stage::NotBegun, counts: WalkCounts::default() }
    }

    /// Prepares a walk through `start`, an entry below `root`, by the same rules as a walk through `root`: the names, the
    /// depths and the filter are relative to `root`, and a file that is none of the videos is left out.
    pub(super) fn below(root: impl Into<PathBuf>, start: PathBuf, options: WalkOptions) -> Walk {
        Walk { start: Some(start), ..Walk::new(root, options) }
    }

    /// Returns the numbers so far.
    pub fn counts(&self) -> &WalkCounts {
        &self.counts
    }

    /// Returns the filter.
    pub fn active_filter(&self) -> Option<&Filter> {
        self.options.filter.as_deref()
    }

    /// Returns the next file, folder or error.
    pub(super) fn step(&mut self) -> Option<WalkStep> {
        loop {
            let step = match &mut self.stage {
                Stage::NotBegun => self.begin(),
                Stage::Over => return None,
                Stage::Folder(walk) => match walk.next() {
                    None => {
                        self.stage = Stage::Over;
                        None
                    }
                    Some(Ok(entry)) => self.examine(entry),
                    Some(Err(error)) => Some(WalkStep::Failed(failed(error, &self.root))),
                },
            };
            if step.is_some() {
                return step;
            }
        }
    }

    fn begin(&mut self) -> Option<WalkStep> {
        self.stage = Stage::Over;
        if let Some(start) = self.start.clone() {
            self.enter(start);
            return None;
        }
        let path = self.root.clone();
        let metadata = match metadata_of_source(&path) {
            Ok(metadata) => metadata,
            Err(error) => return Some(WalkStep::Failed(error)),
        };
        // A file that is named by itself passes every filter: rules are for the contents of folders.
        if metadata.is_file() {
            self.counts.files += 1;
            let relative = path.file_name().map(PathBuf::from).unwrap_or_default();
            return Some(WalkStep::File(FoundFile { path, relative, stamp: FileStamp::from(&metadata) }));
        }
        if !metadata.is_dir() {
            return Some(WalkStep::Failed(WalkError::Special { path }));
        }
        self.enter(path);
        None
    }

    fn enter(&mut self, path: PathBuf) {
        let depth = self.relative(&path).components().count();
        let mut walk = WalkDir::new(&path)
            .follow_links(self.options.follow_links)
            // A link that is walked itself is an entry of its folder, and no source.
            .follow_root_links(self.start.is_none())
            .max_open(MOST_OPEN_FOLDERS);
        match self.options.max_depth.map(|most| most.checked_sub(depth)) {
            None => {}
            Some(Some(below)) => walk = walk.max_depth(below),
            Some(None) => return,
        }
        if self.options.is_sorted {
            walk = walk.sort_by_file_name();
        }
        self.stage = Stage::Folder(Box::new(walk.into_iter()));
    }

    /// Returns the file, the folder or the error; `None` for entries that are left out.
    fn examine(&mut self, entry: DirEntry) -> Option<WalkStep> {
        let kind = entry.file_type();
        // The source itself: it was named, and may be hidden.
        if entry.depth() == 0 && self.start.is_none() {
            return None;
        }
        if kind.is_dir() {
            return self.folder(entry);
        }
        let count = if is_hidden(&entry) || is_partial(entry.file_name()) {
            &mut self.counts.hidden
        } else if kind.is_symlink() {
            &mut self.counts.links
        } else if !kind.is_file() {
            &mut self.counts.special
        } else if !self.options.all_files && !is_video(entry.path()) {
            &mut self.counts.ignored
        } else {
            return self.file(entry);
        };
        *count += 1;
        None
    }

    fn folder(&mut self, entry: DirEntry) -> Option<WalkStep> {
        let is_hidden = is_hidden(&entry);
        if is_hidden {
            self.counts.hidden += 1;
        }
        if is_hidden || self.excludes_folder(&entry) {
            self.leave_folder();
            return None;
        }
        Some(WalkStep::Folder(entry.into_path()))
    }

    fn file(&mut self, entry: DirEntry) -> Option<WalkStep> {
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(error) => return Some(WalkStep::Failed(failed(error, entry.path()))),
        };
        let stamp = FileStamp::from(&metadata);
        let relative = self.relative(entry.path()).to_owned();
        if let Some(filter) = &self.options.filter {
            let modified = stamp.modified();
            let candidate = Candidate { path: &relative, bytes: stamp.bytes, modified };
            let verdict = filter.judge(&candidate, self.options.now.unwrap_or(modified));
            self.counts.filter.count(verdict);
            if !matches!(verdict, Verdict::Admitted { .. }) {
                return None;
            }
        }
        self.counts.files += 1;
        Some(WalkStep::File(FoundFile { path: entry.into_path(), relative, stamp }))
    }

    fn excludes_folder(&mut self, entry: &DirEntry) -> bool {
        if !self.skipped.is_empty()
            && let Ok(metadata) = entry.metadata()
            && self.skipped.contains(&(metadata.dev(), metadata.ino()))
        {
            return true;
        }
        let Some(filter) = &self.options.filter else { return false };
        let relative = self.relative(entry.path());
        let Some(rule) = filter.excludes_folder(relative.as_os_str().as_bytes()) else { return false };
        self.counts.filter.count_folder(rule);
        true
    }

    fn leave_folder(&mut self) {
        if let Stage::Folder(walk) = &mut self.stage {
            walk.skip_current_dir();
        }
    }

    fn relative<'a>(&self, path: &'a Path) -> &'a Path {
        // The walk builds each path on the root, also below a followed link.
        path.strip_prefix(&self.root).unwrap_or(path)
    }
}

impl Iterator for Walk {
    type Item = Result<FoundFile, WalkError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.step()? {
                WalkStep::File(found) => return Some(Ok(found)),
                WalkStep::Failed(error) => return Some(Err(error)),
                WalkStep::Folder(_) => {}
            }
        }
    }
}

impl FusedIterator for Walk {}

fn failed(error: walkdir::Error, fallback: &Path) -> WalkError {
    let path = error.path().unwrap_or(fallback).to_owned();
    if let Some(ancestor) = error.loop_ancestor() {
        return WalkError::Loop { path, ancestor: ancestor.to_owned() };
    }
    match error.into_io_error() {
        Some(error) if error.kind() == io::ErrorKind::NotFound => WalkError::Vanished { path },
        Some(source) => WalkError::Unreadable { path, source },
        None => WalkError::Vanished { path },
    }
}

fn is_video(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    VIDEO_EXTENSIONS.iter().any(|video| video.eq_ignore_ascii_case(extension))
}

/// Returns the metadata of a source. Follows a link: one that the caller names is meant, unlike one that is found in a
/// folder.
fn metadata_of_source(path: &Path) -> Result<Metadata, WalkError> {
    path.metadata().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => WalkError::Missing { path: path.to_owned() },
        _ => WalkError::Unreadable { path: path.to_owned(), source },
    })
}

fn is_hidden(entry: &DirEntry) -> bool {
    entry.file_name().as_bytes().starts_with(b".")
}

/// Names that browsers and copying programs give to files that they are still writing.
fn is_partial(name: &OsStr) -> bool {
    let extension = Path::new(name).extension().and_then(OsStr::to_str).unwrap_or_default();
    ["part", "tmp", "crdownload"].iter().any(|partial| partial.eq_ignore_ascii_case(extension))
}

/// Below this depth walkdir keeps a folder open for each level; beyond it, the names of one folder in memory.
const MOST_OPEN_FOLDERS: usize = 64;

#[cfg(test)]
mod tests;
