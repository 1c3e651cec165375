//! The built command, run as by a shell.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Once, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};
use serde_json::Value;

use super::TestServer;

/// Exit code and output of a run of the command.
#[derive(Debug)]
pub struct CommandOutput {
    /// The exit code, or `None` if a signal ended the process.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl CommandOutput {
    /// Returns the events of `--json`.
    pub fn events(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    /// Returns the last line of `--json`, which is always the summary.
    pub fn summary(&self) -> Value {
        let last = self.events().pop().expect("no event at all");
        assert_eq!(last["event"], "summary", "{self:?}");
        last
    }

    /// Returns the only event with this name.
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

    /// Asserts this exit code, and that standard error contains all of `texts` and no panic.
    pub fn failed(self, code: i32, texts: &[&str]) -> CommandOutput {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        for text in texts {
            assert!(self.stderr.contains(text), "no `{text}` in: {}", self.stderr);
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }
}

/// Returns the command with an empty environment and its own state folder.
pub fn ringlift() -> Command {
    bare(env!("CARGO_BIN_EXE_ringlift"))
}

/// Returns the command for a user other than root, who may not search the folders above a build below `/root`: it is
/// run by its descriptor, which has to stay open until the command is started.
pub fn ringlift_for_any_user() -> (File, Command) {
    let binary = File::open(env!("CARGO_BIN_EXE_ringlift")).unwrap();
    let command = bare(&format!("/proc/self/fd/{}", binary.as_raw_fd()));
    (binary, command)
}

/// Returns the command, run by a shell after `before`, which may change inherited attributes.
pub fn ringlift_after(before: &str) -> Command {
    after(bare("sh"), before)
}

/// Returns the same, without this capability even if this process has all of them.
pub fn ringlift_without(capability: &str, before: &str) -> Command {
    if !rustix::process::geteuid().is_root() {
        return ringlift_after(before);
    }
    let mut command = bare("setpriv");
    command.args(["--bounding-set", &format!("-{capability}"), "sh"]);
    after(command, before)
}

/// Returns the command in its own namespaces (unshare(1)), after `before`, or `None` if these are not permitted.
pub fn ringlift_apart(namespaces: &[&str], before: &str) -> Option<Command> {
    let mut unshare = bare("unshare");
    unshare.args(namespaces);
    let is_allowed = Command::new("unshare").args(namespaces).arg("true").stderr(Stdio::null()).status();
    is_allowed.is_ok_and(|status| status.success()).then(|| {
        unshare.arg("sh");
        after(unshare, before)
    })
}

/// A resource that the command must do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restriction {
    /// At most this many descriptors (`RLIMIT_NOFILE`, getrlimit(2)).
    Descriptors(u32),
    /// At most this many KiB of locked memory (`RLIMIT_MEMLOCK`, getrlimit(2)).
    LockedKib(u32),
    /// No io_uring (io_uring_setup(2)).
    Ring,
    /// No writable shared maps, as on 9P and on FUSE with `direct_io` (mmap(2), ENODEV).
    SharedMaps,
    /// No sendfile (sendfile(2)): every call fails with an error of the file.
    SendFile,
}

impl Restriction {
    /// Runs the command under the restriction, after `prepare` has added the arguments.
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
            Restriction::SendFile => {
                without(libc::SYS_sendfile, Vec::new(), libc::EIO, || run_prepared(ringlift()))
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

/// Runs `act` on a thread where a system call fails with `errno`, always or for the arguments in `rules`. Docker's
/// default profile refuses `io_uring_setup` this way.
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
    // The filter applies to the calling thread and to the processes that it starts.
    let filtered = || {
        apply_filter(&filter).unwrap();
        act()
    };
    thread::scope(|scope| scope.spawn(filtered).join().unwrap())
}

/// Waits until the command has a handler for the signal, whose default action would end it.
pub fn wait_until_caught(child: &Child, signal: Signal) {
    let begun = Instant::now();
    // proc_pid_status(5): a mask in hexadecimal, with the lowest bit for signal 1.
    let caught = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    };
    while caught().is_none_or(|mask| mask >> (signal.as_raw() - 1) & 1 == 0) {
        assert!(begun.elapsed() < Duration::from_secs(30), "no handler for {signal:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn after(mut shell: Command, before: &str) -> Command {
    shell.arg("-c").arg(format!("{before} && exec \"$@\"")).arg("sh").arg(env!("CARGO_BIN_EXE_ringlift"));
    shell
}

/// Takes the default action of signals for this process, which the commands inherit.
///
/// A test process under nohup(1) ignores SIGHUP, and one in the background of a shell SIGINT and SIGQUIT. The command leaves
/// a signal ignored that is so at its start.
fn take_default_signals() {
    static TAKEN: Once = Once::new();
    TAKEN.call_once(|| {
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
            // SAFETY: SIG_DFL refers to no handler, and no test handles these signals.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    });
}

fn bare(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().stdin(Stdio::null());
    take_default_signals();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    // `TestServer::configure` replaces this folder with the server's.
    let state = format!("{}/state-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    command.env("XDG_STATE_HOME", state);
    command
}

impl TestServer {
    /// Sets this server as the endpoint, with the API key.
    pub fn configure<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("APIVIDEO_API_KEY", self.server.api_key());
        self.configure_without_key(command)
    }

    /// Sets this server as the endpoint, without the API key.
    pub fn configure_without_key<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("RINGLIFT_ENDPOINT_URL", self.server.url());
        command.env("XDG_STATE_HOME", self.folder.path());
        match self.ca() {
            Some(ca) => command.env("RINGLIFT_CA_CERT", ca),
            None => command,
        }
    }

    /// Returns the path of the journal of the configured commands.
    pub fn journal(&self) -> PathBuf {
        self.folder.path().join("ringlift/journal.db")
    }

    /// Runs the command against this server, with the API key.
    pub fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> CommandOutput {
        run(self.configure(ringlift().args(args)))
    }

    /// Returns the ids of all videos.
    pub fn video_ids(&self) -> Vec<String> {
        let listed = self.run(["video", "list", "--all", "--json"]).done();
        let videos = listed.events().into_iter().filter(|event| event["event"] == "video");
        videos.map(|event| event["video"]["videoId"].as_str().unwrap().to_owned()).collect()
    }
}

/// Runs the command to its end, and kills it after a timeout.
pub fn run(command: &mut Command) -> CommandOutput {
    run_with_stdin(command, Vec::new())
}

/// Runs the command with this standard input.
pub fn run_with_stdin(command: &mut Command, input: Vec<u8>) -> CommandOutput {
    if !input.is_empty() {
        command.stdin(Stdio::piped());
    }
    let mut child = start(command);
    let stdin = child.stdin.take();
    let writer = thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&input)));
    let ran = end(child);
    // The write fails if the command has failed early and closed the pipe.
    drop(writer.join().unwrap());
    ran
}

/// Starts the command. [`end`] waits for its end.
pub fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Returns the URL that `serve --json` reports when it is ready.
pub fn ready_url(server: &mut Child) -> String {
    let mut line = String::new();
    let stdout = server.stdout.as_mut().unwrap();
    BufReader::with_capacity(1, stdout).read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).expect(&line);
    ready["url"].as_str().unwrap().to_owned()
}

/// Waits for the end of a process, and kills it after a timeout.
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

/// A command with `--json` whose events are read while it runs.
pub struct Watched {
    pub child: Child,
    lines: mpsc::Receiver<String>,
    /// The events that were read.
    pub events: Vec<Value>,
}

impl Watched {
    /// Starts the command.
    pub fn of(command: &mut Command) -> Watched {
        let mut child = start(command);
        let (tell, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Watched { child, lines, events: Vec::new() }
    }

    /// Waits for the next event with this name.
    pub fn event(&mut self, name: &str) -> Value {
        self.event_where(|event| event["event"] == name)
    }

    pub fn event_where(&mut self, is_meant: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|error| panic!("{error}: {:?}", self.events));
            let event: Value = serde_json::from_str(&line).expect(&line);
            self.events.push(event.clone());
            if is_meant(&event) {
                return event;
            }
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Sends the signal twice. Two pending signals of one kind are one, and two of different kinds arrive in any order: the
    /// second one is sent when the first has arrived.
    pub fn signal_twice(&mut self, signal: Signal) {
        self.signal(signal);
        self.event("stopping");
        self.signal(signal);
    }

    /// Sends SIGTERM, and waits for the end.
    pub fn stop(mut self) -> CommandOutput {
        self.signal(Signal::TERM);
        self.event("summary");
        self.end()
    }

    /// Waits for the end, as [`end`] does.
    pub fn end(self) -> CommandOutput {
        let ended = end(self.child);
        let read = self.events.iter().map(|event| format!("{event}\n"));
        let rest = self.lines.iter().map(|line| line + "\n");
        CommandOutput { stdout: read.chain(rest).collect(), ..ended }
    }
}

/// Longer than any test takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);
