//! The built command is killed at random moments and started again until its file is there.
//!
//! After every round: the file is there, byte for byte, in the video that the command names; each kill
//! cost at most the chunks that were under way; and no container was made twice, except where a kill fell,
//! without a key, between the chunk that makes a container and the note of its name: nobody can ask for that.
//! `clean` runs after every kill, and never deletes a video that is complete or can be continued.

use std::fmt;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ringlift::journal::{ContainerState, Entry, Journal};
use ringlift::server::{Action, Fault, RouteClass, Tally};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::command::{Ran, end, ringlift, start};
use crate::support::way::{CHUNK, Way};
use crate::support::{House, MIB, Sample, Scheme, each_at_once};

/// What happened, in one round or in all.
#[derive(Debug, Default)]
struct Totals {
    rounds: u64,
    kills: u64,
    /// Runs that went on with what an earlier one had begun.
    resumes: u64,
    resent_bytes: u64,
    /// Containers beyond the first of their round.
    duplicates: u64,
    /// Kills at the moment that may leave one.
    nameless: u64,
    /// Complete videos of killed commands that `clean --all` kept.
    kept: u64,
}

#[test]
fn a_command_that_is_killed_again_and_again_uploads_its_file_once() {
    let rounds = std::env::var(ROUNDS).ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(SHORT_ROUNDS);
    let combinations: Vec<(Scheme, Way)> = [Scheme::Http, Scheme::Https]
        .into_iter()
        .flat_map(|scheme| Way::CHUNKED.map(|way| (scheme, way)))
        .collect();
    let totals = Mutex::new(Totals::default());
    // Most of a round is waiting: a few at once, one after another.
    each_at_once(0..AT_ONCE, |first| {
        for number in (first..rounds).step_by(AT_ONCE) {
            let (scheme, way) = combinations[number % combinations.len()];
            let round = Errand::new(scheme, way).carry_out(fastrand::u64(..));
            totals.lock().unwrap().add(&round);
        }
    });
    let totals = totals.into_inner().unwrap();
    assert!(totals.kills > 0 && totals.resumes > 0, "nothing was tried: {totals}");
    println!("{totals}");
}

/// A file to be uploaded by one command, however often it takes.
struct Errand {
    house: House,
    way: Way,
    sample: Sample,
    token: Option<String>,
}

impl Errand {
    fn new(scheme: Scheme, way: Way) -> Errand {
        let slow = Action::Throttle { bytes_per_second: 24 * MIB };
        let house = House::faulty(scheme, vec![Fault::new(RouteClass::Chunk, slow).times(0)]);
        let token = way.token(&house);
        Errand { house, way, sample: way.sample(CHUNKS), token }
    }

    /// Kills the command until one of its runs gets through.
    fn carry_out(self, seed: u64) -> Totals {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut round = Totals { rounds: 1, ..Totals::default() };
        let mut left = None;
        let ran = loop {
            let moment = if round.kills < MOST_KILLS { Some(Moment::draw(&mut random)) } else { None };
            round.resumes += u64::from(left.is_some());
            let ran = self.run(moment);
            if is_heard(&ran) {
                break ran;
            }
            assert_eq!(ran.code, None, "seed {seed}, {moment:?}: {ran:?}");
            round.kills += 1;
            left = self.left();
            round.nameless += u64::from(self.way.is_delegated() && left.as_ref().is_some_and(is_nameless));
            let is_written_down = left.is_some() || self.house.server.tally().videos_created == 0;
            assert!(is_written_down, "seed {seed}, {moment:?}: the journal lost it: {ran:?}");
            if let Some(video_id) = self.clean(left.as_ref(), &mut random) {
                self.house.assert_holds(&video_id, &self.sample.path());
                round.kept = 1;
                return round;
            }
        };
        let tally = self.house.server.tally();
        round.duplicates = tally.videos_created - 1;
        round.resent_bytes = tally.file_bytes - self.sample.len;
        self.judge(&ran, left, &round, &format!("{:?}, seed {seed}: {round}, {tally:?}", self.way));
        round
    }

    fn judge(&self, ran: &Ran, left: Option<Entry>, round: &Totals, story: &str) {
        let done = ran.event("file_done");
        let video_id = done["video_id"].as_str().unwrap();
        // It may have said so, and not lived to have its journal forget it.
        if ran.code.is_none() && self.left().is_some() {
            assert_eq!(self.run(None).event("file_done")["video_id"], *video_id, "{story}");
        }
        if let Some(Entry { container: ContainerState::Known { video_id: begun, .. }, .. }) = left {
            assert_eq!(video_id, begun, "another container was finished: {story}");
        }
        self.house.assert_holds(video_id, &self.sample.path());
        assert!(round.duplicates <= round.nameless, "{story}");
        assert!(round.resent_bytes <= round.kills * LANES * CHUNK, "{story}");
        assert!(self.left().is_none(), "the journal keeps what is over: {story}");
    }

    /// Cleans after a kill. Returns the video if it is complete and its upload was given up.
    fn clean(&self, left: Option<&Entry>, random: &mut fastrand::Rng) -> Option<String> {
        self.run_clean(&["clean", "--yes", "--json"]);
        let is_complete = self.house.server.tally().chunks_accepted >= CHUNKS && !self.way.is_delegated();
        let video_id = match left.map(|entry| &entry.container) {
            Some(ContainerState::Known { video_id, .. }) if is_complete && random.bool() => video_id.clone(),
            _ => return None,
        };
        self.run_clean(&["clean", "--yes", "--all", "--json"]);
        assert!(self.left().is_none(), "`clean --all` kept an upload");
        Some(video_id)
    }

    fn run_clean(&self, args: &[&str]) {
        let ran = end(start(self.house.host(&mut ringlift()).args(args)));
        let deleted = ran.events().iter().any(|event| event["event"] == "deleted");
        assert!(ran.code == Some(0) && !deleted, "{ran:?}");
    }

    /// Runs the command to its end or to that moment.
    fn run(&self, moment: Option<Moment>) -> Ran {
        let before = self.house.server.tally();
        let mut child = start(&mut self.command());
        if let Some(moment) = moment
            && moment.comes(&mut child, || self.house.server.tally(), &before)
        {
            kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
        }
        end(child)
    }

    fn command(&self) -> Command {
        let mut command = ringlift();
        match &self.token {
            Some(token) => self.house.host_stranger(&mut command).env("RINGLIFT_UPLOAD_TOKEN", token),
            None => self.house.host(&mut command),
        };
        let mode = self.way.mode_name();
        command.args(["upload", "--json", "--chunk-size", "5MiB", "--mode", mode, self.sample.arg()]);
        command.args(["--concurrency", &LANES.to_string()]);
        command
    }

    /// What the journal has of it, as another process sees it.
    fn left(&self) -> Option<Entry> {
        let path = self.house.journal();
        let mut entries =
            if path.exists() { Journal::open(&path).unwrap().entries().unwrap() } else { vec![] };
        assert!(entries.len() <= 1, "{entries:?}");
        entries.pop()
    }
}

/// When a run is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// So long after its start.
    Started(Duration),
    /// So long after the server has made its container.
    Created(Duration),
    /// So long after the server has recorded its last chunk.
    Stored(Duration),
}

impl Moment {
    fn draw(random: &mut fastrand::Rng) -> Moment {
        let mut ms = |range| Duration::from_millis(random.u64(range));
        match ms(0..8).as_millis() {
            0 => Moment::Created(ms(0..30)),
            1 => Moment::Stored(ms(0..30)),
            _ => Moment::Started(ms(5..600)),
        }
    }

    /// Waits for it; whether it comes before the end of the process.
    fn comes(self, child: &mut Child, tally: impl Fn() -> Tally, before: &Tally) -> bool {
        let mut since = None;
        loop {
            let (is_there, pause) = match self {
                Moment::Started(pause) => (true, pause),
                Moment::Created(pause) => (tally().videos_created > before.videos_created, pause),
                Moment::Stored(pause) => (tally().chunks_accepted >= CHUNKS, pause),
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

/// Whether its process ended where the container was being made.
fn is_nameless(entry: &Entry) -> bool {
    matches!(entry.container, ContainerState::Intended { .. })
}

/// Whether the command lived to say that the file is there.
fn is_heard(ran: &Ran) -> bool {
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
