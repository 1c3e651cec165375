//! The built command, as a shell would run it.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::House;

/// What a run of the command left behind.
#[derive(Debug)]
pub struct Ran {
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
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
    pub fn done(self) -> Ran {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self
    }

    /// Asserts this exit code, and that standard error holds all of `texts` and no panic.
    pub fn failed(self, code: i32, texts: &[&str]) -> Ran {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        for text in texts {
            assert!(self.stderr.contains(text), "no `{text}` in: {}", self.stderr);
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }
}

/// The command, with nothing of this process' environment.
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
    command
}

impl House {
    /// Points the command here and gives it the key.
    pub fn host<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("APIVIDEO_API_KEY", self.server.api_key());
        self.host_stranger(command)
    }

    /// Points the command here, without the key.
    pub fn host_stranger<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("RINGLIFT_ENDPOINT_URL", self.server.url());
        match self.ca() {
            Some(ca) => command.env("RINGLIFT_CA_CERT", ca),
            None => command,
        }
    }

    /// Runs the command here, with the key.
    pub fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Ran {
        run(self.host(ringlift().args(args)))
    }
}

/// Runs it to its end, which has to come.
pub fn run(command: &mut Command) -> Ran {
    run_with_stdin(command, Vec::new())
}

/// The same, with something to read.
pub fn run_with_stdin(command: &mut Command, input: Vec<u8>) -> Ran {
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
pub fn end(child: Child) -> Ran {
    let pid = Pid::from_child(&child);
    let (tell, told) = mpsc::channel();
    let waiter = thread::spawn(move || tell.send(child.wait_with_output()));
    let Ok(output) = told.recv_timeout(PATIENCE) else {
        kill_process(pid, Signal::KILL).unwrap();
        let output = told.recv().unwrap();
        panic!("it hangs: {output:?}");
    };
    waiter.join().unwrap().unwrap();
    Ran::from(output.unwrap())
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// Longer than any test takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);
