//! A process that uploads is killed at random moments and started again until it is done.
//!
//! After every round: the file is there, byte for byte; and each kill cost at most the chunks that were
//! under way. No container was made twice, except where a kill fell between the end of the upload and the
//! word that it is over, or, without a key, between the chunk that makes a container and the note of its
//! name: nobody can ask for that.

use std::process::ExitStatus;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ringlift::server::{Action, Fault, RouteClass};
use ringlift::upload::journal::{Container, Entry, Journal};

use crate::support::child::{Errand, LANES};
use crate::support::way::{CHUNK, Way};
use crate::support::{House, MIB, Scheme, each_at_once};

/// What happened in all rounds.
#[derive(Debug, Default)]
struct Totals {
    kills: AtomicU64,
    resent_bytes: AtomicU64,
    /// Containers that were made twice, each by a kill at one of the two bad moments.
    twice: AtomicU64,
}

#[test]
fn a_process_that_is_killed_again_and_again_uploads_the_file_once() {
    let rounds = std::env::var(ROUNDS).ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(SHORT_ROUNDS);
    let combinations: Vec<(Scheme, Way)> = [Scheme::Http, Scheme::Https]
        .into_iter()
        .flat_map(|scheme| Way::CHUNKED.map(|way| (scheme, way)))
        .collect();
    let totals = Totals::default();
    // Most of a round is waiting: a few at once, one after another.
    each_at_once(0..AT_ONCE, |first| {
        for number in (first..rounds).step_by(AT_ONCE) {
            let (scheme, way) = combinations[number % combinations.len()];
            round(scheme, way, fastrand::u64(..), &totals);
        }
    });
    println!("{rounds} rounds: {totals:?}");
}

/// Kills the uploads of one file until one of them gets through.
fn round(scheme: Scheme, way: Way, seed: u64, totals: &Totals) {
    let mut random = fastrand::Rng::with_seed(seed);
    let slow = Action::Throttle { bytes_per_second: 40 * MIB };
    let house = House::faulty(scheme, vec![Fault::new(RouteClass::Chunk, slow).times(0)]);
    let sample = way.sample(CHUNKS);
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal.db");
    let errand = Errand::new(&house, way, &sample).journal(&journal);
    let (mut kills, mut nameless, mut unheard) = (0, 0, 0);
    let video_id = loop {
        let patience = match kills {
            MOST_KILLS => Duration::from_secs(120),
            _ => Duration::from_millis(random.u64(5..400)),
        };
        if run_or_kill(&errand, patience).is_some() {
            break errand.answer().unwrap().unwrap();
        }
        kills += 1;
        let entries = Journal::open(&journal).unwrap().entries().unwrap();
        nameless += entries.iter().filter(|entry| way.is_delegated() && is_nameless(entry)).count() as u64;
        // The journal forgets what is over.
        let all_sent = house.server.tally().chunks_accepted >= (1 + unheard) * CHUNKS;
        unheard += u64::from(entries.is_empty() && all_sent);
    };
    let tally = house.server.tally();
    let story = format!("{scheme:?} {way:?}, seed {seed}: {kills} kills, {unheard} unheard, {tally:?}");
    house.assert_holds(&video_id, &sample.path());
    assert!(tally.videos_created <= 1 + nameless + unheard, "{nameless} nameless: {story}");
    let resent = tally.file_bytes - (1 + unheard) * sample.len;
    assert!(resent <= kills * LANES as u64 * CHUNK, "{resent} bytes were sent again: {story}");
    assert!(Journal::open(&journal).unwrap().entries().unwrap().is_empty(), "{story}");
    totals.kills.fetch_add(kills, Ordering::Relaxed);
    totals.resent_bytes.fetch_add(resent, Ordering::Relaxed);
    totals.twice.fetch_add(tally.videos_created - 1, Ordering::Relaxed);
}

/// Whether its process ended where the container was being made.
fn is_nameless(entry: &Entry) -> bool {
    matches!(entry.container, Container::Intended { .. })
}

/// Runs it to its end, or for so long.
fn run_or_kill(errand: &Errand, patience: Duration) -> Option<ExitStatus> {
    let (mut process, begun) = (errand.start(), Instant::now());
    while begun.elapsed() < patience {
        if let Some(status) = process.try_wait().unwrap() {
            assert!(status.success(), "{:?}", errand.answer());
            return Some(status);
        }
        sleep(Duration::from_millis(2));
    }
    process.kill().unwrap();
    let status = process.wait().unwrap();
    // It may have come to its end just before.
    errand.answer().map(|_| status)
}

const ROUNDS: &str = "RINGLIFT_SOAK_ROUNDS";
const SHORT_ROUNDS: usize = 10;
const AT_ONCE: usize = 3;
const MOST_KILLS: u64 = 8;
const CHUNKS: u64 = 8;
