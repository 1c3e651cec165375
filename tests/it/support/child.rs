//! Uploads by a process of their own, which can be killed or kept short.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use ringlift::{ChunkSize, Client, Mode};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

use super::way::{CHUNK, Way};
use super::{House, Sample, hurry};

/// What a process is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// More than 64 descriptors (`RLIMIT_NOFILE`, getrlimit(2)).
    Descriptors,
    /// More than 64 KiB of locked memory (`RLIMIT_MEMLOCK`, getrlimit(2)).
    LockedMemory,
    /// io_uring (io_uring_setup(2)).
    Ring,
}

/// An upload to be made by a process of its own: by this program, started again.
pub struct Errand {
    variables: Vec<(&'static str, OsString)>,
    answer: tempfile::TempPath,
}

impl Errand {
    pub fn new(house: &House, way: Way, sample: &Sample) -> Errand {
        let answer = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let errand = Errand { variables: Vec::new(), answer };
        let errand = errand
            .with(ENDPOINT, house.server.url())
            .with(WAY, format!("{:?}", way.mode()))
            .with(FILE, sample.path());
        let errand = match house.ca() {
            Some(ca) => errand.with(CA, ca),
            None => errand,
        };
        match way.is_delegated() {
            true => errand.with(TOKEN, house.upload_token()),
            false => errand.with(KEY, house.server.api_key()),
        }
    }

    pub fn journal(self, path: &Path) -> Errand {
        self.with(JOURNAL, path)
    }

    pub fn without(self, want: Want) -> Errand {
        self.with(WITHOUT, format!("{want:?}"))
    }

    fn with(mut self, name: &'static str, value: impl Into<OsString>) -> Errand {
        self.variables.push((name, value.into()));
        self
    }

    /// Sets a process to it.
    pub fn start(&self) -> Child {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "support::child::upload", "--ignored", "--nocapture"]);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.env(ANSWER, self.answer.as_os_str());
        command.stdout(Stdio::null()).spawn().unwrap()
    }

    /// The video that a process made, or why it did not; `None` when it did not live to say.
    pub fn answer(&self) -> Option<Result<String, String>> {
        let answer = fs::read_to_string(&self.answer).unwrap();
        let (word, rest) = answer.split_once(' ')?;
        Some(if word == "video" { Ok(rest.to_owned()) } else { Err(rest.to_owned()) })
    }
}

#[test]
#[ignore = "what other tests start as a process of its own"]
fn upload() {
    let Some(endpoint) = env::var(ENDPOINT).ok() else { return };
    suffer(env::var(WITHOUT).ok().as_deref());
    let mut client = Client::builder().endpoint_url(endpoint).lanes(LANES).with(hurry);
    if let Some(ca) = env::var_os(CA) {
        client = client.ca_cert(Path::new(&ca));
    }
    if let Ok(key) = env::var(KEY) {
        client = client.api_key(key);
    }
    let journal = env::var_os(JOURNAL).map(Into::into);
    let client = client.with(|settings| settings.journal = journal).build().unwrap();
    let mode = match env::var(WAY).unwrap().as_str() {
        "Bytes" => Mode::Bytes,
        "Parts" => Mode::Parts,
        _ => Mode::Single,
    };
    let upload = client.upload(env::var_os(FILE).unwrap()).mode(mode).chunk_size(ChunkSize::Bytes(CHUNK));
    let uploaded = match env::var(TOKEN) {
        Ok(token) => upload.upload_token(token).send_blocking(),
        Err(_) => upload.send_blocking(),
    };
    let answer = match uploaded {
        Ok(uploaded) => format!("video {}", uploaded.video_id),
        Err(error) => format!("error {:?}: {error}", error.kind()),
    };
    fs::write(env::var_os(ANSWER).unwrap(), answer).unwrap();
}

/// Goes without what the environment says.
fn suffer(without: Option<&str>) {
    let at_most = |resource, most| {
        let maximum = getrlimit(resource).maximum;
        setrlimit(resource, Rlimit { current: Some(most), maximum }).unwrap();
    };
    match without {
        Some("Descriptors") => at_most(Resource::Nofile, 64),
        Some("LockedMemory") => at_most(Resource::Memlock, 64 << 10),
        Some("Ring") => refuse_the_ring(),
        _ => {}
    }
}

/// As Docker's default profile does.
fn refuse_the_ring() {
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let rules = [(libc::SYS_io_uring_setup, Vec::new())].into_iter().collect();
    let arch = env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, arch).unwrap();
    apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}

/// Lanes of a process.
pub const LANES: usize = 3;

const ENDPOINT: &str = "RINGLIFT_TEST_ENDPOINT";
const CA: &str = "RINGLIFT_TEST_CA";
const KEY: &str = "RINGLIFT_TEST_KEY";
const TOKEN: &str = "RINGLIFT_TEST_TOKEN";
const FILE: &str = "RINGLIFT_TEST_FILE";
const WAY: &str = "RINGLIFT_TEST_WAY";
const JOURNAL: &str = "RINGLIFT_TEST_JOURNAL";
const WITHOUT: &str = "RINGLIFT_TEST_WITHOUT";
const ANSWER: &str = "RINGLIFT_TEST_ANSWER";
