//! Kills the built command at random moments and restarts it until its file is stored.
//!
//! Checks after every round: the named video has exactly the bytes of the file; each kill cost at most the chunks in
//! flight; and no container was created twice. The exception is a kill, without an API key, between the chunk that
//! creates a container and the journal entry with its id, because a token cannot search for it.
//! `clean` runs after every kill, and never deletes a video that is complete or can be continued.

use std::fmt;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ringlift::journal::{ContainerState, Entry, Journal};
use ringlift::server::{Fault, FaultAction, RouteClass, ServerStats};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::command::{CommandOutput, end, ringlift, start};
use crate::support::way::{CHUNK, Way};
use crate::support::{MIB, Sample, Scheme, TestServer, each_in_parallel};

/// Counts of one round or of all rounds.
#[derive(Debug, Default)]
struct Totals {
    rounds: u64,
    kills: u64,
    /// Runs that continued an earlier run.
    resumes: u64,
    resent_bytes: u64,
    /// Containers after the first of their round.
    duplicates: u64,
    /// Kills that may leave such a container.
    nameless: u64,
    /// Complete videos of killed commands that `clean --all` kept.
    kept: u64,
}

#[test]
fn a_repeatedly_killed_command_uploads_its_file_once() {
    let rounds = std::env::var(ROUNDS).ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(SHORT_ROUNDS);
    let combinations: Vec<(Scheme, Way)> = [Scheme::Http, Scheme::Https]
        .into_iter()
        .flat_map(|scheme| Way::CHUNKED.map(|way| (scheme, way)))
        .collect();
    let totals = Mutex::new(Totals::default());
    // A round mostly waits, so a few run in parallel.
    each_in_parallel(0..AT_ONCE, |first| {
        for number in (first..rounds).step_by(AT_ONCE) {
            let (scheme, way) = combinations[number % combinations.len()];
            let round = SoakScenario::new(scheme, way).run_until_uploaded(fastrand::u64(..));
            totals.lock().unwrap().add(&round);
        }
    });
    let totals = totals.into_inner().unwrap();
    assert!(totals.kills > 0 && totals.resumes > 0, "nothing was tried: {totals}");
    println!("{totals}");
}

/// A file that one command uploads, with any number of restarts.
struct SoakScenario {
    test_server: TestServer,
    way: Way,
    sample: Sample,
    token: Option<String>,
}

impl SoakScenario {
    fn new(scheme: Scheme, way: Way) -> SoakScenario {
        let slow = FaultAction::Throttle { bytes_per_second: 24 * MIB };
        let test_server = TestServer::faulty(scheme, vec![Fault::new(RouteClass::Chunk, slow).times(0)]);
        let token = way.token(&test_server);
        SoakScenario { test_server, way, sample: way.sample(CHUNKS), token }
    }

    /// Kills the command until one of its runs completes.
    fn run_until_uploaded(self, seed: u64) -> Totals {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut round = Totals { rounds: 1, ..Totals::default() };
        let mut left = None;
        let ran = loop {
            let kill_time = if round.kills < MOST_KILLS { Some(KillTime::random(&mut random)) } else { None };
            round.resumes += u64::from(left.is_some());
            let ran = self.run(kill_time);
            if reported_success(&ran) {
                break ran;
            }
            assert_eq!(ran.code, None, "seed {seed}, {kill_time:?}: {ran:?}");
            round.kills += 1;
            left = self.left();
            round.nameless +=
                u64::from(self.way.is_delegated() && left.as_ref().is_some_and(is_being_created));
            let is_written_down = left.is_some() || self.test_server.server.stats().videos_created == 0;
            assert!(is_written_down, "seed {seed}, {kill_time:?}: the journal lost it: {ran:?}");
            if let Some(video_id) = self.clean(left.as_ref(), &mut random) {
                self.test_server.assert_holds(&video_id, &self.sample.path());
                round.kept = 1;
                return round;
            }
        };
        let tally = self.test_server.server.stats();
        round.duplicates = tally.videos_created - 1;
        round.resent_bytes = tally.file_bytes - self.sample.len;
        self.check_round(&ran, left, &round, &format!("{:?}, seed {seed}: {round}, {tally:?}", self.way));
        round
    }

    fn check_round(&self, ran: &CommandOutput, left: Option<Entry>, round: &Totals, story: &str) {
        let done = ran.event("file_done");
        let video_id = done["video_id"].as_str().unwrap();
        // The command may have been killed between its output and the removal from the journal.
        if ran.code.is_none() && self.left().is_some() {
            assert_eq!(self.run(None).event("file_done")["video_id"], *video_id, "{story}");
        }
        if let Some(Entry { container: ContainerState::Known { video_id: begun, .. }, .. }) = left {
            assert_eq!(video_id, begun, "another container was finished: {story}");
        }
        self.test_server.assert_holds(video_id, &self.sample.path());
        assert!(round.duplicates <= round.nameless, "{story}");
        assert!(round.resent_bytes <= round.kills * LANES * CHUNK, "{story}");
        assert!(self.left().is_none(), "the journal keeps what is over: {story}");
    }

    /// Cleans after a kill. Returns the video if it is complete and its upload was given up.
    fn clean(&self, left: Option<&Entry>, random: &mut fastrand::Rng) -> Option<String> {
        self.run_clean(&["clean", "--yes", "--json"]);
        let is_complete =
            self.test_server.server.stats().chunks_accepted >= CHUNKS && !self.way.is_delegated();
        let video_id = match left.map(|entry| &entry.container) {
            Some(ContainerState::Known { video_id, .. }) if is_complete && random.bool() => video_id.clone(),
            _ => return None,
        };
        self.run_clean(&["clean", "--yes", "--all", "--json"]);
        assert!(self.left().is_none(), "`clean --all` kept an upload");
        Some(video_id)
    }

    fn run_clean(&self, args: &[&str]) {
        let ran = end(start(self.test_server.configure(&mut ringlift()).args(args)));
        let deleted = ran.events().iter().any(|event| event["event"] == "deleted");
        assert!(ran.code == Some(0) && !deleted, "{ran:?}");
    }

    /// Runs the command to its end or until it is killed.
    fn run(&self, kill_time: Option<KillTime>) -> CommandOutput {
        let before = self.test_server.server.stats();
        let mut child = start(&mut self.command());
        if let Some(kill_time) = kill_time
            && kill_time.wait(&mut child, || self.test_server.server.stats(), &before)
        {
            kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
        }
        end(child)
    }

    fn command(&self) -> Command {
        let mut command = ringlift();
        match &self.token {
            Some(token) => {
                self.test_server.configure_without_key(&mut command).env("RINGLIFT_UPLOAD_TOKEN", token)
            }
            None => self.test_server.configure(&mut command),
        };
        let mode = self.way.mode_name();
        command.args(["upload", "--json", "--chunk-size", "5MiB", "--mode", mode, self.sample.arg()]);
        command.args(["--concurrency", &LANES.to_string()]);
        command
    }

    /// Returns the journal entry, as another process reads it.
    fn left(&self) -> Option<Entry> {
        let path = self.test_server.journal();
        let mut entries =
            if path.exists() { Journal::open(&path).unwrap().entries().unwrap() } else { vec![] };
        assert!(entries.len() <= 1, "{entries:?}");
        entries.pop()
    }
}

/// The time of a kill.
#[derive(Clone, Copy, Debug)]
enum KillTime {
    /// This long after the start.
    Started(Duration),
    /// This long after the server created the container.
    Created(Duration),
    /// This long after the server stored the last chunk.
    Stored(Duration),
}

impl KillTime {
    fn random(random: &mut fastrand::Rng) -> KillTime {
        let mut ms = |range| Duration::from_millis(random.u64(range));
        match ms(0..8).as_millis() {
            0 => KillTime::Created(ms(0..30)),
            1 => KillTime::Stored(ms(0..30)),
            _ => KillTime::Started(ms(5..600)),
        }
    }

    /// Waits for the time. Returns `false` if the process ends first.
    fn wait(self, child: &mut Child, tally: impl Fn() -> ServerStats, before: &ServerStats) -> bool {
        let mut since = None;
        loop {
            let (is_there, pause) = match self {
                KillTime::Started(pause) => (true, pause),
                KillTime::Created(pause) => (tally().videos_created > before.videos_created, pause),
                KillTime::Stored(pause) => (tally().chunks_accepted >= CHUNKS, pause),
            };
            let since = if is_there { Some(*since.get_or_insert_with(Instant::now)) } else { None };
            if since.is_some_and(|since| since.elapsed() >= pause) {
                return true;
            }
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            sleep(Duration::from_millis(1));
        }
    }
}

/// Returns `true` if the process ended while the container was being created.
fn is_being_created(entry: &Entry) -> bool {
    matches!(entry.container, ContainerState::Intended { .. })
}

/// Returns `true` if the command reported success before it was killed.
fn reported_success(ran: &CommandOutput) -> bool {
    ran.events().iter().any(|event| event["event"] == "file_done")
}

impl Totals {
    fn add(&mut self, round: &Totals) {
        self.rounds += round.rounds;
        self.kills += round.kills;
        self.resumes += round.resumes;
        self.resent_bytes += round.resent_bytes;
        self.duplicates += round.duplicates;
        self.nameless += round.nameless;
        self.kept += round.kept;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals { rounds, kills, resumes, resent_bytes, duplicates, nameless, kept } = self;
        let (resent, at_most) = (resent_bytes / MIB, kills * LANES * CHUNK / MIB);
        write!(f, "{rounds} rounds, {kills} kills, {resumes} resumes, {resent} MiB sent again of at most ")?;
        write!(f, "{at_most}, {duplicates} duplicates ({nameless} kills before a name), ")?;
        write!(f, "{kept} complete videos kept by `clean --all`")
    }
}

const ROUNDS: &str = "RINGLIFT_SOAK_ROUNDS";
const SHORT_ROUNDS: usize = 10;
const AT_ONCE: usize = 3;
const MOST_KILLS: u64 = 8;
const CHUNKS: u64 = 8;
const LANES: u64 = 3;
