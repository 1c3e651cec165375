//! The built command, as a shell would run it.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};
use serde_json::Value;

use super::TestServer;

/// What a run of the command left behind.
#[derive(Debug)]
pub struct CommandOutput {
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl CommandOutput {
    /// The lines of `--json`.
    pub fn events(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    /// The last line of `--json`, which is always the summary.
    pub fn summary(&self) -> Value {
        let last = self.events().pop().expect("no event at all");
        assert_eq!(last["event"], "summary", "{self:?}");
        last
    }

    /// The only event of this name.
    pub fn event(&self, name: &str) -> Value {
        let mut found: Vec<_> = self.events().into_iter().filter(|event| event["event"] == name).collect();
        assert_eq!(found.len(), 1, "events {name} of {self:?}");
        found.remove(0)
    }

    /// Asserts success.
    pub fn done(self) -> CommandOutput {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self
    }

    /// Asserts this exit code, and that standard error holds all of `texts` and no panic.
    pub fn failed(self, code: i32, texts: &[&str]) -> CommandOutput {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        for text in texts {
            assert!(self.stderr.contains(text), "no `{text}` in: {}", self.stderr);
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }
}

/// The command, with nothing of this process' environment and with a state folder of its own.
pub fn ringlift() -> Command {
    bare(env!("CARGO_BIN_EXE_ringlift"))
}

/// The command, run by a shell after `before`, which may change what it inherits.
pub fn ringlift_after(before: &str) -> Command {
    after(bare("sh"), before)
}

/// The same, as somebody without this capability even where this process has all of them.
pub fn ringlift_without(capability: &str, before: &str) -> Command {
    if !rustix::process::geteuid().is_root() {
        return ringlift_after(before);
    }
    let mut command = bare("setpriv");
    command.args(["--bounding-set", &format!("-{capability}"), "sh"]);
    after(command, before)
}

/// The command in namespaces of its own (unshare(1)), after `before`; `None` where it may not have them.
pub fn ringlift_apart(namespaces: &[&str], before: &str) -> Option<Command> {
    let mut unshare = bare("unshare");
    unshare.args(namespaces);
    let is_allowed = Command::new("unshare").args(namespaces).arg("true").stderr(Stdio::null()).status();
    is_allowed.is_ok_and(|status| status.success()).then(|| {
        unshare.arg("sh");
        after(unshare, before)
    })
}

/// What a command is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restriction {
    /// More than this many descriptors (`RLIMIT_NOFILE`, getrlimit(2)).
    Descriptors(u32),
    /// More than this many KiB of locked memory (`RLIMIT_MEMLOCK`, getrlimit(2)).
    LockedKib(u32),
    /// io_uring (io_uring_setup(2)).
    Ring,
    /// Files mapped to be written, as 9P and FUSE with `direct_io` refuse it (mmap(2), ENODEV).
    SharedMaps,
}

impl Restriction {
    /// Runs the command without it, once `prepare` has said what it is to do.
    pub fn run(self, prepare: impl FnOnce(&mut Command) + Send) -> CommandOutput {
        let run_prepared = |mut command: Command| {
            prepare(&mut command);
            run(&mut command)
        };
        match self {
            Restriction::Descriptors(most) => run_prepared(ringlift_after(&format!("ulimit -n {most}"))),
            Restriction::LockedKib(most) => {
                run_prepared(ringlift_without("ipc_lock", &format!("ulimit -l {most}")))
            }
            Restriction::Ring => {
                without(libc::SYS_io_uring_setup, Vec::new(), libc::EPERM, || run_prepared(ringlift()))
            }
            Restriction::SharedMaps => {
                let is = |argument, value| {
                    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, value)
                };
                let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
                let maps = vec![is(2, prot as u64).unwrap(), is(3, flags as u64).unwrap()];
                let maps = vec![SeccompRule::new(maps).unwrap()];
                without(libc::SYS_mmap, maps, libc::ENODEV, || run_prepared(ringlift()))
            }
        }
    }
}

/// Starts processes where a system call is refused, always or as `rules` say: the one that makes rings is by
/// Docker's default profile.
fn without<T: Send>(
    call: libc::c_long,
    rules: Vec<SeccompRule>,
    errno: i32,
    act: impl FnOnce() -> T + Send,
) -> T {
    let refused = SeccompAction::Errno(errno as u32);
    let rules = [(call, rules)].into();
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, arch).unwrap();
    let filter = BpfProgram::try_from(filter).unwrap();
    // It holds for the thread that asks for it, and for the processes that this one starts.
    let filtered = || {
        apply_filter(&filter).unwrap();
        act()
    };
    thread::scope(|scope| scope.spawn(filtered).join().unwrap())
}

fn after(mut shell: Command, before: &str) -> Command {
    shell.arg("-c").arg(format!("{before} && exec \"$@\"")).arg("sh").arg(env!("CARGO_BIN_EXE_ringlift"));
    shell
}

fn bare(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().stdin(Stdio::null());
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    // Where it is pointed at a house, it keeps its journal there.
    let state = format!("{}/state-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    command.env("XDG_STATE_HOME", state);
    command
}

impl TestServer {
    /// Points the command here and gives it the key.
    pub fn configure<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("APIVIDEO_API_KEY", self.server.api_key());
        self.configure_without_key(command)
    }

    /// Points the command here, without the key.
    pub fn configure_without_key<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("RINGLIFT_ENDPOINT_URL", self.server.url());
        command.env("XDG_STATE_HOME", self.folder.path());
        match self.ca() {
            Some(ca) => command.env("RINGLIFT_CA_CERT", ca),
            None => command,
        }
    }

    /// The journal of the commands that are pointed here.
    pub fn journal(&self) -> PathBuf {
        self.folder.path().join("ringlift/journal.db")
    }

    /// Runs the command here, with the key.
    pub fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> CommandOutput {
        run(self.configure(ringlift().args(args)))
    }
}

/// Runs it to its end, which has to come.
pub fn run(command: &mut Command) -> CommandOutput {
    run_with_stdin(command, Vec::new())
}

/// The same, with something to read.
pub fn run_with_stdin(command: &mut Command, input: Vec<u8>) -> CommandOutput {
    if !input.is_empty() {
        command.stdin(Stdio::piped());
    }
    let mut child = start(command);
    let stdin = child.stdin.take();
    let writer = thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&input)));
    let ran = end(child);
    // A command that fails early closes its end of the pipe.
    drop(writer.join().unwrap());
    ran
}

/// Starts it, to be ended by [`end`].
pub fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The address that `serve --json` says it is ready at.
pub fn ready_url(server: &mut Child) -> String {
    let mut line = String::new();
    let stdout = server.stdout.as_mut().unwrap();
    BufReader::with_capacity(1, stdout).read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).expect(&line);
    ready["url"].as_str().unwrap().to_owned()
}

/// Waits for the end of a process, and kills it when that does not come.
pub fn end(child: Child) -> CommandOutput {
    let pid = Pid::from_child(&child);
    let (tell, told) = mpsc::channel();
    let waiter = thread::spawn(move || tell.send(child.wait_with_output()));
    let Ok(output) = told.recv_timeout(PATIENCE) else {
        kill_process(pid, Signal::KILL).unwrap();
        let output = told.recv().unwrap();
        panic!("it hangs: {output:?}");
    };
    waiter.join().unwrap().unwrap();
    CommandOutput::from(output.unwrap())
}

impl From<Output> for CommandOutput {
    fn from(output: Output) -> CommandOutput {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        CommandOutput { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// Longer than any test takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);
