use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::*;
use crate::source::error::Change;
use crate::source::page_cache::Residency;
use crate::source::reader::{Reader, Reason};
use crate::source::sigbus::MAX_GUARDED;

fn temp_of(len: usize) -> tempfile::NamedTempFile {
    let mut temp = tempfile::NamedTempFile::new().unwrap();
    temp.write_all(&vec![7; len]).unwrap();
    temp
}

fn mapped(temp: &tempfile::NamedTempFile, delivery: Delivery) -> MmapSource {
    let file = SourceFile::open(temp.path()).unwrap();
    let residency = Residency { percent: 100 };
    let choice = Choice { reader: Reader::Mmap, delivery, residency, reason: Reason::Asked };
    MmapSource::new(&file, &choice).unwrap()
}

fn assert_truncated(result: Result<impl Sized, SourceError>, wanted: Change) {
    match result {
        Err(SourceError::Changed { change, .. }) => assert_eq!(change, wanted),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("the truncation was not noticed"),
    }
}

#[test]
fn reading_a_truncated_map_is_an_error_of_that_file_only() {
    let (temp, other_temp) = (temp_of(1 << 20), temp_of(1 << 20));
    let (source, other) = (mapped(&temp, Delivery::Tls), mapped(&other_temp, Delivery::Tls));
    let whole = source.read_now(Extent::new(0, 1 << 20)).unwrap().unwrap();
    temp.as_file().set_len(300_000).unwrap();
    assert!(whole[..294_912].iter().all(|byte| *byte == 7));
    // Touches missing pages: without the handler the test ends here.
    assert!(whole[303_104..].iter().all(|byte| *byte == 0));
    let change = Change::Truncated { from: 1 << 20, to: 300_000 };
    assert_truncated(source.check(), change);
    assert_truncated(source.read_now(Extent::new(0, 10)).unwrap(), change);
    other.check().unwrap();
    assert_eq!(other.read_now(Extent::new(0, 10)).unwrap().unwrap(), vec![7; 10]);
}

#[test]
fn a_block_of_a_truncated_file_is_refused_before_it_is_read() {
    let temp = temp_of(1 << 20);
    let source = mapped(&temp, Delivery::Tls);
    temp.as_file().set_len(0).unwrap();
    let read = source.read_now(Extent::new(8192, 8192)).unwrap();
    assert_truncated(read, Change::Truncated { from: 1 << 20, to: 0 });
}

#[test]
fn truncations_under_load_leave_the_process_alive() {
    let readers = (0..2).map(|_| thread::spawn(|| (0..30).for_each(|_| read_while_truncated())));
    readers.collect::<Vec<_>>().into_iter().for_each(|reader| reader.join().unwrap());
}

fn read_while_truncated() {
    const LEN: usize = 1 << 20;
    let temp = temp_of(LEN);
    let source = mapped(&temp, Delivery::Tls);
    let slices: Vec<_> = Extent::new(0, LEN as u64)
        .blocks(64 << 10)
        .map(|block| source.read_now(block).unwrap().unwrap())
        .collect();
    let handle = temp.as_file().try_clone().unwrap();
    let cutter = thread::spawn(move || {
        thread::sleep(Duration::from_micros(200));
        handle.set_len(4096).unwrap();
    });
    let mut met_the_end = false;
    while !met_the_end {
        met_the_end = slices.iter().any(|slice| std::hint::black_box(slice).contains(&0));
    }
    cutter.join().unwrap();
    assert_truncated(source.check(), Change::Truncated { from: LEN as u64, to: 4096 });
}

/// Runs itself in a child, which faults in a map that is not ours.
#[test]
fn a_fault_elsewhere_still_ends_the_process() {
    const CHILD: &str = "RINGLIFT_TEST_FAULT_ELSEWHERE";
    if std::env::var_os(CHILD).is_some() {
        let (guarded, foreign) = (temp_of(4096), temp_of(4096));
        let _guarded = mapped(&guarded, Delivery::Tls);
        let unguarded = mapped(&foreign, Delivery::Plain).read_now(Extent::new(0, 4096)).unwrap().unwrap();
        foreign.as_file().set_len(0).unwrap();
        std::process::exit(i32::from(unguarded[0]));
    }
    let test = "source::mmap::tests::a_fault_elsewhere_still_ends_the_process";
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", test]).env(CHILD, "1").output().unwrap();
    assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{output:?}");
}

#[test]
fn a_map_that_is_read_holds_no_more_of_the_file_than_it_may() {
    let temp = temp_of(0);
    let len = 3 * MOST_PRESENT_BYTES as u64;
    temp.as_file().set_len(len).unwrap();
    let source = mapped(&temp, Delivery::Tls);
    let most = MOST_PRESENT_BYTES + READ_BLOCK_BYTES as usize;
    for block in Extent::new(0, len).blocks(READ_BLOCK_BYTES) {
        let bytes = source.read_now(block).unwrap().unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0));
        let present = present_bytes(source.region().address);
        assert!((READ_BLOCK_BYTES as usize..=most).contains(&present), "{present} at {block:?}");
    }
}

/// Returns the bytes of the map at `address` that are in this process's page tables (`Rss`, proc_pid_smaps(5)).
fn present_bytes(address: usize) -> usize {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = smaps.lines().skip_while(|line| !line.starts_with(&format!("{address:x}-")));
    let rss = lines.find_map(|line| line.strip_prefix("Rss:")).unwrap();
    rss.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
}

#[test]
fn a_slot_is_free_again_after_its_map() {
    let temp = temp_of(4096);
    for _ in 0..2 * MAX_GUARDED {
        drop(mapped(&temp, Delivery::Tls));
    }
}

#[test]
fn slices_keep_the_map_after_the_source_is_gone() {
    let temp = temp_of(10_000);
    let slice = mapped(&temp, Delivery::Tls).read_now(Extent::new(9_000, 1_000)).unwrap().unwrap();
    assert!(slice.iter().all(|byte| *byte == 7));
}

#[test]
fn the_region_is_where_the_slices_are() {
    let temp = temp_of(10_000);
    let source = mapped(&temp, Delivery::Plain);
    let (region, slice) = (source.region(), source.read_now(Extent::new(5_000, 10)).unwrap().unwrap());
    assert_eq!((slice.as_ptr() as usize, region.len), (region.address + 5_000, 10_000));
}
