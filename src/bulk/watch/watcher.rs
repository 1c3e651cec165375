//! The loop of a watch.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::event_source::{AddError, EventSource, FolderEvent, FolderId};
use super::file_system::without_events;
use super::notice::{GivenNotices, PollReason, WatchNotice};
use super::options::WatchOptions;
use super::remembered::{MOST_REMEMBERED, Remembered};
use super::root::Root;
use super::selector::DoneMark;
use super::settle::{Cause, MOST_PENDING, SettleOutcome, SettleTable, WatchedFile};
use super::shared::{Shared, WatchStatus};
use crate::bulk::walk::{FoundFile, Walk, WalkError, WalkStep};

/// The state of the thread of a watch.
#[derive(Debug)]
pub(super) struct FolderWatcher {
    roots: Vec<Root>,
    /// `None` if events cannot be had.
    source: Option<Box<dyn EventSource>>,
    /// The watched folders with their roots.
    folders: HashMap<FolderId, (u32, PathBuf)>,
    /// The scans of folders that have arrived.
    arrivals: VecDeque<(u32, Walk)>,
    table: SettleTable,
    /// The notices that are given once.
    given: GivenNotices,
    shared: Arc<Shared>,
    rescan: Duration,
    steps: u64,
}

impl FolderWatcher {
    pub(super) fn new(
        roots: Vec<Root>,
        options: &WatchOptions,
        source: io::Result<Box<dyn EventSource>>,
        shared: Arc<Shared>,
    ) -> FolderWatcher {
        let table = SettleTable::new(MOST_PENDING, Remembered::new(roots.len(), MOST_REMEMBERED));
        FolderWatcher {
            roots,
            source: source.ok(),
            folders: HashMap::new(),
            arrivals: VecDeque::new(),
            table,
            given: GivenNotices::default(),
            shared,
            rescan: options.rescan,
            steps: 0,
        }
    }

    /// Runs until the watch is stopped.
    pub(super) fn run(mut self) {
        while !self.shared.is_stopped() {
            let events = self.read_events();
            for event in events {
                self.handle(event);
            }
            self.check_roots();
            self.begin_scans();
            let goes_on = self.scan();
            self.look();
            self.publish();
            if !goes_on {
                self.wait();
            }
        }
    }

    fn read_events(&mut self) -> Vec<FolderEvent> {
        let mut events = Vec::new();
        if let Some(source) = &mut self.source
            && source.read(&mut events).is_err()
        {
            // Not to be expected. Scans find everything, only later.
            self.source = None;
            self.folders.clear();
            events.push(FolderEvent::Overflow);
        }
        events
    }

    fn handle(&mut self, event: FolderEvent) {
        self.steps += 1;
        match event {
            FolderEvent::Arrived { folder, name } => {
                if let Some((root, path)) = self.entry(folder, name) {
                    self.examine(root, path);
                }
            }
            FolderEvent::FolderLeft { folder, name } => {
                if let Some((_, path)) = self.entry(folder, name) {
                    self.unwatch(|_, folder| folder.starts_with(&path));
                }
            }
            FolderEvent::Gone { folder } => self.check_soon(folder),
            FolderEvent::Unwatched { folder } => drop(self.folders.remove(&folder)),
            FolderEvent::Overflow => {
                self.shared.notify(WatchNotice::EventsLost);
                // inotify(7): the event of an overflow names no watch, so that every folder may have missed something.
                self.roots.iter_mut().for_each(|root| root.has_missed = true);
            }
        }
    }

    /// Returns the root and the path of an entry of a watched folder.
    fn entry(&self, folder: FolderId, name: OsString) -> Option<(u32, PathBuf)> {
        self.folders.get(&folder).map(|(root, path)| (*root, path.join(name)))
    }

    /// Lets the next round check a folder that is gone, if it is a root.
    fn check_soon(&mut self, folder: FolderId) {
        if let Some((root, path)) = self.folders.get(&folder)
            && let Some(root) = self.roots.get_mut(*root as usize)
            && *path == root.selector.root()
        {
            root.check_at = Instant::now();
        }
    }

    /// Examines an entry that has arrived.
    fn examine(&mut self, root: u32, path: PathBuf) {
        let selector = &self.roots[root as usize].selector;
        // A mark that arrives declares another file complete: that file is examined in its place.
        let path = selector.marked_by(&path).unwrap_or(path);
        let mut walk = selector.walk_below(path);
        let step = walk.step();
        let is_folder = matches!(step, Some(WalkStep::Folder(_)));
        if let Some(step) = step {
            self.take_step(root, step, Cause::Event);
        }
        if is_folder {
            // Files may have been created before the folder was watched. Its entries are read only now.
            if self.arrivals.len() < MOST_ARRIVALS {
                self.arrivals.push_back((root, walk));
            } else {
                self.roots[root as usize].has_missed = true;
            }
        }
    }

    /// Examines the watched folders themselves: some disappear without an event, for example below a new mount.
    fn check_roots(&mut self) {
        let now = Instant::now();
        for index in 0..self.roots.len() {
            let root = &mut self.roots[index];
            if root.check_at > now {
                continue;
            }
            root.check_at = now + BETWEEN_CHECKS;
            let current = root.current_identity();
            if root.identity != current {
                self.take_identity(index as u32, current, now);
            }
        }
    }

    /// Takes over the identity of a root that has gone, has come back or was replaced.
    fn take_identity(&mut self, index: u32, current: Option<(u64, u64)>, now: Instant) {
        let root = &self.roots[index as usize];
        let folder = root.selector.root().to_owned();
        // A folder that was replaced is gone and back at once: its watches belong to the old inode.
        if root.identity.is_some() {
            self.detach(index);
            self.shared.notify(WatchNotice::FolderGone { folder: folder.clone() });
        }
        if current.is_some() {
            let root = &mut self.roots[index as usize];
            (root.identity, root.scan_at) = (current, now);
            // At the start of a watch the folder is found, which is no return.
            if std::mem::replace(&mut root.was_there, true) {
                self.shared.notify(WatchNotice::FolderBack { folder: folder.clone() });
            }
            self.watch(index, folder);
        }
    }

    /// Ends the watches and the scans of a root that is gone.
    fn detach(&mut self, index: u32) {
        self.unwatch(|root, _| root == index);
        self.arrivals.retain(|(root, _)| *root != index);
        let root = &mut self.roots[index as usize];
        (root.identity, root.scan, root.has_missed) = (None, None, false);
    }

    fn unwatch(&mut self, is_meant: impl Fn(u32, &Path) -> bool) {
        let meant = self.folders.iter().filter(|(_, (root, path))| is_meant(*root, path));
        let meant: Vec<FolderId> = meant.map(|(id, _)| *id).collect();
        for id in meant {
            self.folders.remove(&id);
            if let Some(source) = &mut self.source {
                source.remove(id);
            }
        }
    }

    /// Watches a folder before its entries are read, so that no arrival is missed between the two.
    fn watch(&mut self, index: u32, path: PathBuf) {
        let root = &mut self.roots[index as usize];
        // Asked for each folder: another file system may be mounted inside the root.
        if let Some(magic) = without_events(&path) {
            return self.poll(index, PollReason::FileSystem { magic });
        }
        let Some(source) = &mut self.source else { return self.poll(index, PollReason::NoInotify) };
        if root.found_reason == Some(PollReason::WatchLimit) {
            // Each further folder would get the same answer.
            return;
        }
        match source.add(&path) {
            Ok(id) => drop(self.folders.insert(id, (index, path))),
            Err(AddError::Limit) => self.poll(index, PollReason::WatchLimit),
            // The event or the check that reports the end of the folder follows by itself.
            Err(AddError::Gone) => {}
            Err(AddError::Other(source)) => {
                let error = WalkError::Unreadable { path, source };
                self.give_once(WatchNotice::Unreadable { message: error.to_string() });
            }
        }
    }

    fn poll(&mut self, index: u32, reason: PollReason) {
        let root = &mut self.roots[index as usize];
        root.found_reason = Some(reason);
        if root.polls.is_none() {
            root.polls = Some(reason);
            let folder = root.selector.root().to_owned();
            self.shared.notify(WatchNotice::Polling { folder, reason });
        }
    }

    fn begin_scans(&mut self) {
        let now = Instant::now();
        for index in 0..self.roots.len() {
            // A scan that follows a full table needs room to find more.
            let has_room = self.table.pending() < MOST_PENDING / 2;
            let root = &mut self.roots[index];
            let is_due = root.scan_at <= now || (root.has_missed && has_room);
            if root.identity.is_none() || root.scan.is_some() || !is_due {
                continue;
            }
            root.has_missed = false;
            root.found_reason = None;
            root.scan = Some((root.selector.walk(), now));
            self.table.remembered().begin_scan(index as u32);
            let folder = self.roots[index].selector.root().to_owned();
            // The walk does not return the root itself.
            self.watch(index as u32, folder);
        }
    }

    /// Advances the scans for some steps. Returns `true` if there is more to do at once.
    fn scan(&mut self) -> bool {
        for _ in 0..STEPS_BETWEEN_EVENTS {
            if !self.table.has_room() {
                // The thread has to wait: room comes from files that settle, and not from more steps.
                return false;
            }
            if let Some((root, walk)) = self.arrivals.front_mut() {
                let root = *root;
                match walk.step() {
                    Some(step) => self.take_step(root, step, Cause::Scan),
                    None => drop(self.arrivals.pop_front()),
                }
                continue;
            }
            let scanned = self.roots.iter_mut().position(|root| root.scan.is_some());
            let Some(index) = scanned else { return false };
            match self.roots[index].scan.as_mut().and_then(|(walk, _)| walk.step()) {
                Some(step) => self.take_step(index as u32, step, Cause::Scan),
                None => self.end_scan(index),
            }
        }
        true
    }

    fn end_scan(&mut self, index: usize) {
        let root = &mut self.roots[index];
        let Some((_, started)) = root.scan.take() else { return };
        let now = Instant::now();
        if root.polls != root.found_reason {
            // The limit was raised, or another mount is there now.
            root.polls = root.found_reason;
            let folder = root.selector.root().to_owned();
            self.shared.notify(match root.polls {
                Some(reason) => WatchNotice::Polling { folder, reason },
                None => WatchNotice::Watching { folder },
            });
        }
        root.scan_at = now + root.interval(self.rescan, now.saturating_duration_since(started));
        self.table.remembered().end_scan(index as u32);
    }

    fn take_step(&mut self, root: u32, step: WalkStep, cause: Cause) {
        self.steps += 1;
        match step {
            WalkStep::Folder(path) => self.watch(root, path),
            WalkStep::File(found) => self.found(root, found, cause),
            // Another process is faster: the folder itself is examined soon anyway.
            WalkStep::Failed(WalkError::Vanished { .. } | WalkError::Missing { .. }) => {}
            WalkStep::Failed(error) => self.give_once(WatchNotice::Unreadable { message: error.to_string() }),
        }
    }

    fn found(&mut self, index: u32, found: FoundFile, cause: Cause) {
        let FoundFile { path, stamp, .. } = found;
        let root = &mut self.roots[index as usize];
        // With all files selected a mark is found as a file, too.
        if root.selector.marked_by(&path).is_some()
            || self.table.remembered().contains(index, &path, (stamp.bytes, stamp.modified_ns))
        {
            return;
        }
        let mark = root.selector.mark(&path, stamp.modified_ns);
        // Without its mark a file is not followed: the arrival of the mark finds it again.
        let Some(version) = root.selector.version(&path).filter(|_| mark != DoneMark::Missing) else {
            return;
        };
        let key = WatchedFile { root: index, path: path.into() };
        let rest = root.rest();
        if !self.table.found(&key, version, mark == DoneMark::Fresh, rest, cause, Instant::now()) {
            root.has_missed = true;
        }
    }

    /// Looks at the files whose time has come, as long as the reader has room for them.
    fn look(&mut self) {
        for _ in 0..STEPS_BETWEEN_EVENTS {
            if !self.shared.has_room() {
                return;
            }
            let Some(key) = self.table.due(Instant::now()) else { return };
            self.steps += 1;
            let looked = self.roots[key.root as usize].selector.look(&key.path);
            if let Some(failure) = looked.failure {
                self.give_once(WatchNotice::Unreadable { message: failure.to_string() });
            }
            match (self.table.looked(&key, looked.look, Instant::now()), looked.found) {
                (SettleOutcome::Settled, Some(found)) => self.shared.add(found),
                (SettleOutcome::Open { open_for }, _) if open_for >= LONG_OPEN => {
                    let path = key.path.to_path_buf();
                    self.give_once(WatchNotice::StillOpen { path, open_for });
                }
                _ => {}
            }
        }
    }

    fn give_once(&mut self, notice: WatchNotice) {
        if self.given.is_new(&notice) {
            self.shared.notify(notice);
        }
    }

    fn publish(&mut self) {
        self.steps += 1;
        let gone = self.roots.iter().filter(|root| root.identity.is_none()).count();
        let is_scanning = self.roots.iter().any(|root| root.scan.is_some()) || !self.arrivals.is_empty();
        let (steps, pending) = (self.steps, self.table.pending());
        let status =
            WatchStatus { steps, pending, folders_gone: gone, is_scanning, ..WatchStatus::default() };
        self.shared.set_status(status);
    }

    /// Waits for events, for the reader, or for the next time at which there is something to do.
    fn wait(&mut self) {
        let now = Instant::now();
        let of_roots = self.roots.iter().map(|root| {
            let scan = root.identity.filter(|_| root.scan.is_none()).map(|_| root.scan_at);
            scan.map_or(root.check_at, |scan| scan.min(root.check_at))
        });
        // A reader that has no room wakes this thread when it has.
        let looks = self.table.next_due().filter(|_| self.shared.has_room());
        let next = of_roots.chain(looks).min().unwrap_or(now + LONGEST_WAIT);
        let wait = next.saturating_duration_since(now).min(LONGEST_WAIT);
        let timeout = Timespec::try_from(wait).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let mut descriptors = vec![PollFd::from_borrowed_fd(self.shared.wake_descriptor(), PollFlags::IN)];
        let source = self.source.as_ref().and_then(|source| source.descriptor());
        descriptors.extend(source.map(|source| PollFd::from_borrowed_fd(source, PollFlags::IN)));
        // An interrupted wait is a short one.
        let _ = poll(&mut descriptors, Some(&timeout));
        drop(descriptors);
        // Before the state is read again, so that a wake that comes later ends the next wait.
        self.shared.reset_wake();
    }
}

/// Steps of scans, or looks, between two readings of events: the kernel queues only some thousands.
const STEPS_BETWEEN_EVENTS: usize = 256;

/// Folders that wait for their scan. Each has an open descriptor.
const MOST_ARRIVALS: usize = 64;

/// The time between two examinations of the watched folders themselves.
const BETWEEN_CHECKS: Duration = Duration::from_secs(1);

/// The longest wait of the thread, so that its steps go on.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Writers of live recordings keep their file open for hours: one notice is enough.
const LONG_OPEN: Duration = Duration::from_secs(10 * 60);
