//! The identity of a session's file, and the rule that decides if the file is unchanged.

use serde::{Deserialize, Serialize};

pub use crate::source::FileSystem;

/// A file and its state, as stat(2) reports them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredIdentity", into = "StoredIdentity")]
pub struct SourceIdentity {
    /// The device, `st_dev`.
    pub device: u64,
    /// The inode number.
    pub inode: u64,
    /// The length in bytes.
    pub len: u64,
    /// The time of the last change of the content, in nanoseconds since 1970.
    pub mtime_ns: i128,
    /// The time of the last change of content or metadata, in nanoseconds since 1970.
    pub ctime_ns: i128,
    /// The kind of file system. Not stored: [`FileSystem::Stable`] for an identity read from the journal.
    pub file_system: FileSystem,
}

/// The result of comparing a file with the one whose chunks an earlier process sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The same file, without a sign that a byte changed.
    Same,
    /// The same file by path, length and mtime. The digests of its chunks have to prove that no byte changed.
    Prove,
    /// The same file by path, length and mtime. No digests exist that could prove that no byte changed.
    Anew,
    /// Another file, or other bytes.
    Another,
}

/// Compares a file at the time when its chunks were sent (`then`) with an existing file (`now`).
///
/// `is_same_path` is `true` if both were found at the same path, `has_digests` if every acknowledged chunk has a
/// digest. The file system of `now` decides if inode numbers and ctime can be relied on.
pub fn compare(
    then: &SourceIdentity,
    now: &SourceIdentity,
    is_same_path: bool,
    has_digests: bool,
) -> Comparison {
    if (then.len, then.mtime_ns) != (now.len, now.mtime_ns) || !is_same_place(then, now, is_same_path) {
        return Comparison::Another;
    }
    // A program can set mtime back after a write, but not ctime: between two processes ctime alone reveals such a write.
    let is_moved = then.ctime_ns != now.ctime_ns;
    let is_copy_of_mtime = now.ctime_ns == now.mtime_ns;
    let has_witness = match now.file_system {
        FileSystem::Stable | FileSystem::Renumbering => true,
        // Such a file system may report mtime as ctime. Where the two differ, ctime is its own.
        FileSystem::Fuse | FileSystem::Fat => !is_copy_of_mtime,
    };
    // FAT does not store ctime: after a remount ctime equals mtime, which proves nothing.
    let is_touched = is_moved && (has_witness || now.file_system != FileSystem::Fat);
    match (is_touched, has_digests) {
        (true, true) => Comparison::Prove,
        (true, false) => Comparison::Anew,
        // Nothing shows a change, but nothing excludes one either: digests are compared where they exist.
        (false, true) if !has_witness || then.inode != now.inode => Comparison::Prove,
        (false, _) => Comparison::Same,
    }
}

/// Returns `true` if both identities belong to the same file.
///
/// A device number may change when the machine restarts, and the path when the file is moved: one of the two is
/// enough where inode numbers are stable. Elsewhere only the path identifies the file.
fn is_same_place(then: &SourceIdentity, now: &SourceIdentity, is_same_path: bool) -> bool {
    match now.file_system {
        FileSystem::Stable => then.inode == now.inode && (then.device == now.device || is_same_path),
        FileSystem::Renumbering | FileSystem::Fuse | FileSystem::Fat => is_same_path,
    }
}

/// The stored form of an identity.
///
/// JSON has no integers of 128 bits, and nanoseconds since 1970 in 64 bits end in the year 2262.
#[derive(Serialize, Deserialize)]
struct StoredIdentity {
    device: u64,
    inode: u64,
    len: u64,
    /// Seconds since 1970, and nanoseconds on top of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mtime: Option<(i64, u32)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ctime: Option<(i64, u32)>,
    /// The mtime of format 2. Times after 2262 were cut off, and equal no time of a file.
    #[serde(default, skip_serializing)]
    mtime_ns: i64,
    #[serde(default, skip_serializing)]
    ctime_ns: i64,
}

impl From<SourceIdentity> for StoredIdentity {
    fn from(identity: SourceIdentity) -> StoredIdentity {
        let SourceIdentity { device, inode, len, mtime_ns, ctime_ns, .. } = identity;
        let (mtime, ctime) = (Some(apart(mtime_ns)), Some(apart(ctime_ns)));
        StoredIdentity { device, inode, len, mtime, ctime, mtime_ns: 0, ctime_ns: 0 }
    }
}

impl From<StoredIdentity> for SourceIdentity {
    fn from(written: StoredIdentity) -> SourceIdentity {
        let StoredIdentity { device, inode, len, .. } = written;
        let mtime_ns = written.mtime.map_or(written.mtime_ns.into(), together);
        let ctime_ns = written.ctime.map_or(written.ctime_ns.into(), together);
        SourceIdentity { device, inode, len, mtime_ns, ctime_ns, file_system: FileSystem::default() }
    }
}

/// Splits a time into seconds and nanoseconds. stat(2) gives seconds of 64 bits, so that the split is exact.
fn apart(ns: i128) -> (i64, u32) {
    let seconds = ns.div_euclid(SECOND_NS).clamp(i64::MIN.into(), i64::MAX.into());
    (seconds as i64, ns.rem_euclid(SECOND_NS) as u32)
}

/// Joins seconds and nanoseconds. Nanoseconds of a second or more come from damaged rows, and are cut off.
fn together((seconds, nanoseconds): (i64, u32)) -> i128 {
    i128::from(seconds) * SECOND_NS + i128::from(nanoseconds).min(SECOND_NS - 1)
}

const SECOND_NS: i128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::Comparison::*;
    use super::FileSystem::*;
    use super::*;

    const THEN: SourceIdentity =
        SourceIdentity { device: 1, inode: 2, len: 3, mtime_ns: 40, ctime_ns: 50, file_system: Stable };

    fn now(file_system: FileSystem, change: impl FnOnce(&mut SourceIdentity)) -> SourceIdentity {
        let mut now = SourceIdentity { file_system, ..THEN };
        change(&mut now);
        now
    }

    /// With a digest of each chunk, and without; at the same path.
    fn both(then: &SourceIdentity, now: &SourceIdentity) -> [Comparison; 2] {
        [compare(then, now, true, true), compare(then, now, true, false)]
    }

    #[test]
    fn the_file_system_decides_what_numbers_and_times_are_worth() {
        type Act = fn(&mut SourceIdentity);
        let nothing: Act = |_| {};
        let remounted: Act = |now| (now.device, now.inode) = (7, 7);
        let touched: Act = |now| now.ctime_ns = 51;
        let touched_and_remounted: Act = |now| (now.device, now.inode, now.ctime_ns) = (7, 7, 51);
        #[rustfmt::skip]
        let table = [
            // file system,  what happened,          with and without digests
            (Stable,         nothing,                [Same, Same]),
            (Stable,         remounted,              [Another, Another]),
            (Stable,         touched,                [Prove, Anew]),
            (Renumbering,    nothing,                [Same, Same]),
            (Renumbering,    remounted,              [Prove, Same]),
            (Renumbering,    touched,                [Prove, Anew]),
            (Renumbering,    touched_and_remounted,  [Prove, Anew]),
            (Fuse,           nothing,                [Same, Same]),
            (Fuse,           remounted,              [Prove, Same]),
            (Fuse,           touched,                [Prove, Anew]),
            (Fuse,           touched_and_remounted,  [Prove, Anew]),
            (Fat,            nothing,                [Same, Same]),
            (Fat,            remounted,              [Prove, Same]),
            (Fat,            touched,                [Prove, Anew]),
        ];
        for (file_system, act, expected) in table {
            let now = now(file_system, act);
            assert_eq!(both(&THEN, &now), expected, "{now:?}");
        }
    }

    #[test]
    fn a_ctime_that_repeats_mtime_is_no_witness_where_none_is_stored() {
        let copied = SourceIdentity { ctime_ns: 40, ..THEN };
        for file_system in [Fuse, Fat] {
            assert_eq!(both(&copied, &SourceIdentity { file_system, ..copied }), [Prove, Same]);
        }
        // The mount that knew another ctime is gone.
        assert_eq!(both(&THEN, &SourceIdentity { file_system: Fat, ..copied }), [Prove, Same]);
        assert_eq!(both(&THEN, &SourceIdentity { file_system: Fuse, ..copied }), [Prove, Anew]);
        assert_eq!(both(&copied, &SourceIdentity { file_system: Stable, ..copied }), [Same, Same]);
    }

    #[test]
    fn other_bytes_or_another_place_are_another_file_everywhere() {
        for file_system in [Stable, Renumbering, Fuse, Fat] {
            for act in [|now: &mut SourceIdentity| now.len = 4, |now: &mut SourceIdentity| now.mtime_ns = 41]
            {
                assert_eq!(both(&THEN, &now(file_system, act)), [Another; 2], "{file_system:?}");
            }
            let elsewhere = now(file_system, |now| now.device = 7);
            assert_eq!(compare(&THEN, &elsewhere, false, true), Another, "{file_system:?}");
        }
        assert_eq!(compare(&THEN, &THEN, false, true), Same, "renamed on its file system");
        let renumbered = now(Stable, |now| now.device = 7);
        assert_eq!(compare(&THEN, &renumbered, true, false), Same, "the machine started again");
    }

    #[test]
    fn times_are_written_to_the_nanosecond_whatever_the_year() {
        let year_2400 = 13_569_465_600 * SECOND_NS;
        for mtime_ns in [-1, -SECOND_NS, 0, 7, year_2400, year_2400 + 1, i64::MAX as i128 * SECOND_NS] {
            let written = serde_json::to_string(&SourceIdentity { mtime_ns, ..THEN }).unwrap();
            let read: SourceIdentity = serde_json::from_str(&written).unwrap();
            assert_eq!(read, SourceIdentity { mtime_ns, ..THEN }, "{written}");
        }
    }

    #[test]
    fn an_identity_of_format_2_is_read_and_one_that_was_cut_off_equals_no_file() {
        let read = |mtime_ns: i64| -> SourceIdentity {
            let text = format!(
                r#"{{"device":1,"inode":2,"len":3,"mtime_ns":{mtime_ns},"ctime_ns":{}}}"#,
                mtime_ns.min(50)
            );
            serde_json::from_str(&text).unwrap()
        };
        assert_eq!(compare(&read(40), &SourceIdentity { ctime_ns: 40, ..THEN }, true, false), Same);
        let far = SourceIdentity { mtime_ns: 13_569_465_600 * SECOND_NS, ..THEN };
        assert_eq!(compare(&read(i64::MAX), &far, true, true), Another);
    }
}
