//! The contract of [`Source`], tested against every source.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;

use super::testing::{self, Fixture, Kind};
use super::*;

const LEN: u64 = 1_300_123;

#[test]
fn awkward_extents_are_read_exactly() {
    for kind in Kind::ALL {
        testing::with(kind, LEN as usize, move |Fixture { source, content, .. }| async move {
            let edge = testing::BLOCK_BYTES;
            let offsets = [0, 1, 511, 512, 4095, 4096, 4097, edge - 1, edge, edge + 1, 3 * edge - 7];
            let lens = [1, 2, 511, 513, 4096, 4097, edge - 4096, edge - 1, edge];
            for extent in offsets.iter().flat_map(|o| lens.iter().map(|l| Extent::new(*o, *l))) {
                let bytes = testing::get(&source, extent).await.unwrap();
                let (from, to) = (extent.offset() as usize, extent.end() as usize);
                assert!(bytes == content[from..to], "{kind:?} {extent:?}");
            }
        });
    }
}

#[test]
fn the_end_of_the_file_is_read_and_nothing_beyond_it() {
    for kind in Kind::ALL {
        testing::with(kind, LEN as usize, move |Fixture { source, content, .. }| async move {
            for len in [1, 122, 123, 124, 4096, 5000, 65_536] {
                let bytes = testing::get(&source, Extent::new(LEN - len, len)).await.unwrap();
                assert!(bytes == content[(LEN - len) as usize..], "{kind:?} {len}");
            }
            for extent in [Extent::new(LEN - 10, 11), Extent::new(LEN, 1), Extent::new(1 << 40, 4096)] {
                let past = testing::get(&source, extent).await.unwrap_err();
                assert!(matches!(past, SourceError::PastEnd { len: LEN, .. }), "{kind:?} {past}");
            }
        });
    }
}

#[test]
fn an_empty_extent_is_at_hand() {
    for kind in Kind::ALL {
        testing::with(kind, 10_000, move |Fixture { source, .. }| async move {
            for offset in [0, 4097, 10_000] {
                let bytes = source.read_now(Extent::new(offset, 0)).unwrap().unwrap();
                assert!(bytes.is_empty(), "{kind:?}");
                assert!(source.read(Extent::new(offset, 0)).await.unwrap().is_empty(), "{kind:?}");
            }
        });
    }
}

#[test]
fn a_reused_buffer_shows_no_earlier_bytes() {
    for kind in Kind::ALL {
        testing::with(kind, LEN as usize, move |Fixture { source, content, .. }| async move {
            for round in 0..20 {
                // A whole block, then a short piece into the same memory.
                drop(testing::get(&source, Extent::new(0, testing::BLOCK_BYTES)).await.unwrap());
                let extent = Extent::new(LEN - 123 - round, 123);
                let bytes = testing::get(&source, extent).await.unwrap();
                assert!(bytes == content[extent.offset() as usize..extent.end() as usize], "{kind:?}");
            }
        });
    }
}

#[test]
fn many_reads_in_flight_each_get_their_own_bytes() {
    for kind in Kind::ALL {
        testing::with(kind, LEN as usize, move |Fixture { source, content, .. }| async move {
            let extents: Vec<_> = Extent::new(0, LEN).blocks(50_021).collect();
            // Backwards, and more than there are buffers.
            let reads = extents.iter().rev().map(|extent| {
                let (source, content) = (source.clone(), Rc::clone(&content));
                async move {
                    let bytes = testing::get(&source, *extent).await.unwrap();
                    assert!(bytes == content[extent.offset() as usize..extent.end() as usize]);
                    bytes.len() as u64
                }
            });
            assert_eq!(join_all(reads).await.iter().sum::<u64>(), LEN, "{kind:?}");
        });
    }
}

#[test]
fn an_abandoned_read_returns_its_buffer() {
    for kind in [Kind::Uring, Kind::Direct, Kind::Pread, Kind::PreadCold] {
        testing::with(kind, LEN as usize, move |Fixture { source, content, pool, .. }| async move {
            for round in 0..50 {
                let reads = (0..3).map(|i| source.read(Extent::new(i * 4096, testing::BLOCK_BYTES)));
                let some = tokio::time::timeout(Duration::from_micros(round * 5), join_all(reads));
                drop(some.await);
            }
            testing::all_free(&pool).await;
            let bytes = source.read(Extent::new(1, 5000)).await.unwrap();
            assert!(bytes == content[1..5001], "{kind:?}");
        });
    }
}

#[test]
fn a_runtime_that_ends_with_reads_in_flight_ends() {
    for kind in [Kind::Uring, Kind::Direct, Kind::Pread] {
        testing::with(kind, LEN as usize, move |Fixture { source, .. }| async move {
            // One abandoned in flight, two awaited by tasks.
            drop(source.read(Extent::new(0, 4096)).now_or_never());
            for i in 1..3 {
                let read = source.read(Extent::new(i * 4096, testing::BLOCK_BYTES));
                tokio::task::spawn_local(async move { read.await.unwrap() });
            }
            tokio::task::yield_now().await;
        });
    }
}

#[test]
fn a_truncated_file_is_a_changed_file() {
    for kind in Kind::FILES {
        testing::with(kind, LEN as usize, move |Fixture { source, file, .. }| async move {
            file.set_len(100_000).unwrap();
            // Those that send the map leave it to the kernel to find out.
            if kind == Kind::Mmap {
                return;
            }
            for extent in [Extent::new(90_000, 20_000), Extent::new(600_000, 4096), Extent::new(LEN - 1, 1)] {
                let error = testing::get(&source, extent).await.unwrap_err();
                let change = Change::Truncated { from: LEN, to: 100_000 };
                assert!(
                    matches!(&error, SourceError::Changed { change: found, .. } if *found == change),
                    "{kind:?} {extent:?}: {error}",
                );
            }
        });
    }
}

#[test]
fn offsets_past_four_gibibytes_are_not_cut_off() {
    const FAR: u64 = (1 << 36) + (1 << 32) + 12_345;
    for kind in Kind::FILES {
        testing::with(kind, 0, move |fixture| async move {
            fixture.file.write_all_at(b"far out", FAR).unwrap();
            fixture.file.write_all_at(b"near by", FAR % (1 << 32)).unwrap();
            let source = fixture.reopen();
            let bytes = testing::get(&source, Extent::new(FAR - 2, 9)).await.unwrap();
            assert_eq!(&bytes[..], b"\0\0far out", "{kind:?}");
        });
    }
}

#[test]
fn sources_with_buffers_refuse_more_than_a_block_at_once() {
    for kind in [Kind::Uring, Kind::Direct, Kind::Pread] {
        testing::with(kind, LEN as usize, move |Fixture { source, .. }| async move {
            let error = testing::get(&source, Extent::new(0, testing::BLOCK_BYTES + 1)).await.unwrap_err();
            assert!(matches!(error, SourceError::TooLong { .. }), "{kind:?} {error}");
        });
    }
}

#[test]
fn without_a_ring_in_the_thread_reading_goes_on_with_the_reason() {
    let mut temp = tempfile::NamedTempFile::new().unwrap();
    temp.write_all(b"some bytes").unwrap();
    let file = SourceFile::open(temp.path()).unwrap();
    let environment = Environment { delivery: Delivery::Tls, sigbus: SigbusHandler::Leave, ring: &Ok(()) };
    let choice = probe::choose(Reader::Uring, &file, &environment);
    testing::without_ring(async move {
        let pool = BufferPool::new(1, 4096).unwrap();
        let (source, declined) = AnySource::open(&file, &choice, &pool);
        assert_eq!(declined, Err(Unavailable::NoRing));
        assert_eq!(testing::get(&source, Extent::new(5, 5)).await.unwrap(), "bytes");
    });
}

/// A ring that may lock too little memory reads into some blocks registered, into the others not.
#[test]
fn blocks_that_could_not_be_registered_read_the_same() {
    use rustix::process::{Resource, getrlimit};
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

    let Some(limit) = getrlimit(Resource::Memlock).current.filter(|limit| *limit <= 64 << 20) else {
        return; // There is nothing to exceed.
    };
    let blocks = 2 * limit / BLOCK_BYTES + 4;
    let test = move || {
        let mut mine = capabilities(None).unwrap();
        mine.effective.remove(CapabilitySet::IPC_LOCK);
        set_capabilities(None, mine).unwrap();
        uring::start(async {
            let pool = BufferPool::in_ring(blocks as usize, BLOCK_BYTES).unwrap();
            let registered = pool.ring().unwrap() as u64;
            assert!((1..blocks).contains(&registered), "{registered} of {blocks}");
            testing::read_all_at_once(&pool, blocks).await;
        });
    };
    std::thread::spawn(test).join().unwrap();
}

#[test]
fn cold_plain_reads_leave_the_page_cache_as_it_was() {
    testing::with(Kind::PreadCold, 8 << 20, move |Fixture { source, file, .. }| async move {
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let resident = || page_cache::resident_percent(&file, 8 << 20).unwrap();
        let before = resident();
        for block in Extent::new(0, 8 << 20).blocks(source.block_bytes()) {
            drop(source.read(block).await.unwrap());
        }
        assert!(resident() <= before.max(10), "{before}% before, {}% after", resident());
    });
}
