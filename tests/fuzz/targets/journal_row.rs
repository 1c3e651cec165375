//! A journal row is read back as it was written, or refused.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringlift::journal::fuzzing::{read, seal};

fuzz_target!(|input: &[u8]| {
    // One line per field; the chunks are the rest.
    let mut pieces = input.splitn(3, |&byte| byte == b'\n');
    let (Some(path), Some(record), Some(stored)) = (pieces.next(), pieces.next(), pieces.next()) else {
        return;
    };
    let Ok(record) = String::from_utf8(record.to_vec()) else { return };
    let input = (path.to_vec(), record, stored.to_vec());
    let Some((written, entry)) = read(&input) else { return };
    let again = read(&written).expect("what was written can be read");
    assert_eq!(again, (written.clone(), entry.clone()));
    let set: u32 = input.2.iter().map(|byte| byte.count_ones()).sum();
    assert_eq!(entry.stored_chunks, set);
    assert!(entry.plan.is_none_or(|plan| plan.chunks() > 0 && plan.chunks() <= 10_000));
    // Another path, other chunks, or another split of the same bytes must change the digest.
    let (path, record, stored) = input;
    let ours = seal(&(path.clone(), record.clone(), stored.clone()));
    if let Some((last, rest)) = path.split_last() {
        let moved = [rest, &[last ^ 1]].concat();
        assert_ne!(seal(&(moved, record.clone(), stored.clone())), ours);
    }
    assert_ne!(seal(&(path, record, [&stored[..], &[0]].concat())), ours);
});
