use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const SETTLE: Duration = Duration::from_secs(10);

fn key(number: usize) -> WatchedFile {
    WatchedFile { root: 0, path: Path::new(&format!("/films/{number}.mp4")).into() }
}

fn table(limit: usize) -> SettleTable {
    SettleTable::new(limit, Remembered::new(1, 1000))
}

fn version(bytes: u64, time: i128) -> Version {
    Version { bytes, modified_ns: time, changed_ns: time }
}

/// A file of the model.
#[derive(Clone, Debug)]
struct ModelFile {
    version: Version,
    is_open: bool,
    changed_at: Instant,
}

/// Folders, a clock that may be set back, and the content that was last returned of each path.
struct Model {
    table: SettleTable,
    files: [Option<ModelFile>; 3],
    now: Instant,
    wall: i128,
    /// Makes the times of changes differ although the clock is set back.
    changes: i128,
    returned: HashMap<usize, (u64, i128)>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { file: usize, bytes: u64 },
    Truncate(usize),
    Delete(usize),
    RenameOver { from: usize, to: usize },
    Open(usize),
    Close(usize),
    Event(usize),
    Scan,
    SetClockBack(u64),
    Wait(u64),
}

fn change() -> impl Strategy<Value = Change> {
    let file = 0usize..3;
    prop_oneof![
        4 => (file.clone(), 1u64..100).prop_map(|(file, bytes)| Change::Write { file, bytes }),
        1 => file.clone().prop_map(Change::Truncate),
        1 => file.clone().prop_map(Change::Delete),
        1 => (file.clone(), file.clone()).prop_map(|(from, to)| Change::RenameOver { from, to }),
        1 => file.clone().prop_map(Change::Open),
        2 => file.clone().prop_map(Change::Close),
        3 => file.prop_map(Change::Event),
        2 => Just(Change::Scan),
        1 => (0u64..3600).prop_map(Change::SetClockBack),
        6 => (0u64..15_000).prop_map(Change::Wait),
    ]
}

impl Model {
    fn new() -> Model {
        let (table, now) = (table(100), Instant::now());
        let files = [None, None, None];
        Model { table, files, now, wall: 1 << 60, changes: 0, returned: HashMap::new() }
    }

    fn write(&mut self, file: usize, bytes: impl Fn(u64) -> u64) {
        self.changes += 1;
        let time = self.wall + self.changes;
        let before = self.files[file].as_ref();
        let bytes = bytes(before.map_or(0, |file| file.version.bytes));
        let is_open = before.is_some_and(|file| file.is_open);
        self.files[file] = Some(ModelFile { version: version(bytes, time), is_open, changed_at: self.now });
    }

    fn find(&mut self, file: usize, cause: Cause) {
        if let Some(found) = &self.files[file] {
            assert!(self.table.found(&key(file), found.version, false, SETTLE, cause, self.now));
        }
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Write { file, bytes } => self.write(file, |before| before + bytes),
            Change::Truncate(file) => self.write(file, |_| 0),
            Change::Delete(file) => self.files[file] = None,
            Change::RenameOver { from, to } => {
                if let Some(mut moved) = self.files[from].take() {
                    self.changes += 1;
                    moved.version.changed_ns = self.wall + self.changes;
                    moved.changed_at = self.now;
                    self.files[to] = Some(moved);
                    self.find(to, Cause::Event);
                }
            }
            Change::Open(file) => self.files[file].iter_mut().for_each(|file| file.is_open = true),
            Change::Close(file) => {
                self.files[file].iter_mut().for_each(|file| file.is_open = false);
                self.find(file, Cause::Event);
            }
            Change::Event(file) => self.find(file, Cause::Event),
            Change::Scan => (0..3).for_each(|file| self.find(file, Cause::Scan)),
            Change::SetClockBack(seconds) => self.wall -= i128::from(seconds) * 1_000_000_000,
            Change::Wait(millis) => {
                self.now += Duration::from_millis(millis);
                self.wall += i128::from(millis) * 1_000_000;
            }
        }
        self.look();
    }

    fn look(&mut self) {
        while let Some(due) = self.table.due(self.now) {
            let number = (0..3).find(|number| key(*number) == due).unwrap();
            let look = match &self.files[number] {
                None => FileLook::Absent,
                Some(file) if file.is_open => FileLook::Open(file.version),
                Some(file) => FileLook::Closed { version: file.version, is_marked: false },
            };
            if self.table.looked(&due, look, self.now) == SettleOutcome::Settled {
                let file = self.files[number].as_ref().expect("a deleted file was returned");
                assert!(!file.is_open, "a file was returned while a process had it open");
                assert!(file.changed_at + SETTLE <= self.now, "a file was returned before it rested");
                let Version { bytes, modified_ns, .. } = file.version;
                let content = (bytes, modified_ns);
                let last = self.returned.insert(number, content);
                assert_ne!(last, Some(content), "a content was returned twice without another one between");
            }
        }
    }
}

proptest! {
    #[test]
    fn only_files_that_rest_are_returned_and_each_content_once(
        changes in prop::collection::vec(change(), 0..80)
    ) {
        let mut model = Model::new();
        changes.into_iter().for_each(|change| model.apply(change));
        // In the end everything is returned that is there.
        (0..3).for_each(|file| model.apply(Change::Close(file)));
        model.apply(Change::Wait(15_000));
        model.apply(Change::Wait(15_000));
        for (number, file) in model.files.iter().enumerate() {
            if let Some(ModelFile { version, .. }) = file {
                let content = (version.bytes, version.modified_ns);
                prop_assert_eq!(model.returned.get(&number), Some(&content));
            }
        }
        prop_assert_eq!((model.table.pending(), model.table.due.len()), (0, 0));
    }
}

#[test]
fn a_content_that_comes_back_after_another_one_is_returned_again() {
    let mut model = Model::new();
    for change in [
        Change::Truncate(1),
        Change::Event(1),
        Change::Wait(10_000),
        Change::RenameOver { from: 1, to: 0 },
        Change::Write { file: 1, bytes: 1 },
        Change::Scan,
        Change::Wait(10_000),
        // The path has its first content again. The queue knows the job by its id, and skips it.
        Change::RenameOver { from: 0, to: 1 },
    ] {
        model.apply(change);
    }
    let content = *model.returned.get(&1).unwrap();
    model.apply(Change::Wait(10_000));
    assert_ne!(model.returned.get(&1), Some(&content));
}

#[test]
fn a_marked_file_needs_no_settle_time_and_a_settle_time_of_zero_is_none() {
    let (mut table, now, key) = (table(10), Instant::now(), key(0));
    table.found(&key, version(5, 1), true, SETTLE, Cause::Event, now);
    assert_eq!(table.due(now).as_ref(), Some(&key));
    let look = FileLook::Closed { version: version(6, 2), is_marked: true };
    assert_eq!(table.looked(&key, look, now), SettleOutcome::Settled);
    table.found(&key, version(7, 3), false, Duration::ZERO, Cause::Event, now);
    assert_eq!(table.due(now).as_ref(), Some(&key));
    let look = FileLook::Closed { version: version(7, 3), is_marked: false };
    assert_eq!(table.looked(&key, look, now), SettleOutcome::Settled);
}

#[test]
fn a_file_that_a_process_has_open_is_looked_at_once_a_second_at_most() {
    let (mut table, now, key) = (table(10), Instant::now(), key(0));
    table.found(&key, version(5, 1), false, Duration::ZERO, Cause::Scan, now);
    table.due(now).unwrap();
    let open = FileLook::Open(version(5, 1));
    assert_eq!(table.looked(&key, open, now), SettleOutcome::Open { open_for: Duration::ZERO });
    assert_eq!(table.due(now + Duration::from_millis(999)), None);
    let later = now + Duration::from_secs(1);
    table.due(later).unwrap();
    assert_eq!(table.looked(&key, open, later), SettleOutcome::Open { open_for: Duration::from_secs(1) });
}

#[test]
fn a_full_table_refuses_new_files_and_goes_on_with_the_others() {
    let (mut table, now) = (table(2), Instant::now());
    let mut found = |number| table.found(&key(number), version(1, 1), false, SETTLE, Cause::Scan, now);
    assert_eq!([found(0), found(1), found(2), found(1)], [true, true, false, true]);
    assert!(!table.has_room() && table.pending() == 2);
}

#[test]
fn a_settle_time_beyond_the_clock_is_accepted() {
    let (mut table, now) = (table(2), Instant::now());
    assert!(table.found(&key(0), version(1, 1), false, Duration::MAX, Cause::Scan, now));
    assert_eq!(table.due(now + SETTLE), None);
}

#[test]
fn files_that_left_are_forgotten_after_a_whole_scan_and_memory_is_bounded() {
    let mut remembered = Remembered::new(2, 100);
    for number in 0..200 {
        remembered.insert(number % 2, &key(number as usize).path, (1, 1));
    }
    assert_eq!(remembered.len(), 100);
    // Returned again after each scan, and the same job then.
    assert!(!remembered.contains(0, &key(150).path, (1, 1)));
    remembered.begin_scan(0);
    assert!(remembered.contains(0, &key(10).path, (1, 1)));
    assert!(!remembered.contains(0, &key(12).path, (2, 1)), "another content");
    remembered.end_scan(0);
    assert_eq!(remembered.len(), 52, "two files of this root, and all of the other");
    assert!(remembered.contains(1, &key(11).path, (1, 1)));
}
