//! The compared clients: detection, installation and command lines.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use ringlift_baseline::Scheme;
use serde::Serialize;

use crate::Result;

/// A client of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Competitor {
    Ringlift,
    /// Only `sendfile`: the limit for plain HTTP.
    Sendfile,
    /// Only `sendfile`, one request for each chunk: the limit of every client that sends ranges one after the other.
    SendfileRanges,
    /// Only copies and AES-256-GCM: the limit for HTTPS.
    Sealing,
    /// Only `O_DIRECT` reads: the limit for cold files.
    ReadDirect,
    Reqwest,
    /// One request with the whole file.
    Curl,
    /// The method of the guide: `split`, then one request per part.
    CurlSplit,
    Python,
    Node,
}

impl Competitor {
    pub(crate) const ALL: [Competitor; 10] = [
        Competitor::Ringlift,
        Competitor::Sendfile,
        Competitor::SendfileRanges,
        Competitor::Sealing,
        Competitor::ReadDirect,
        Competitor::Reqwest,
        Competitor::Curl,
        Competitor::CurlSplit,
        Competitor::Python,
        Competitor::Node,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Competitor::Ringlift => "ringlift",
            Competitor::Sendfile => "sendfile loop",
            Competitor::SendfileRanges => "sendfile loop in ranges",
            Competitor::Sealing => "sealing loop",
            Competitor::ReadDirect => "O_DIRECT read loop",
            Competitor::Reqwest => "reqwest multipart",
            Competitor::Curl => "curl -F",
            Competitor::CurlSplit => "split + curl -F",
            Competitor::Python => "official Python client",
            Competitor::Node => "official Node client",
        }
    }

    /// Returns the scheme of the sink that receives the bytes of a comparison over `scheme`.
    pub(crate) fn scheme(self, scheme: Scheme) -> Scheme {
        // The sealing loop makes no handshake, so a sink with TLS would refuse its records.
        if self == Competitor::Sealing { Scheme::Http } else { scheme }
    }
}

/// The file to send, and its destination.
#[derive(Clone, Debug)]
pub(crate) struct Load<'a> {
    pub(crate) file: &'a Path,
    pub(crate) url: &'a str,
    pub(crate) ca: Option<&'a Path>,
    pub(crate) chunk_bytes: u64,
    pub(crate) lanes: u32,
    /// Further options of ringlift.
    pub(crate) options: &'a [&'a str],
}

/// The installed clients with their versions, and the reasons for missing ones.
pub(crate) struct Competitors {
    /// The folder of the official clients.
    folder: PathBuf,
    /// Cargo's target folder.
    target: PathBuf,
    /// The ringlift binary to measure, or `None` to build one.
    given: Option<PathBuf>,
    /// This program, which implements some of the competitors.
    this: PathBuf,
    /// The state folder of ringlift, emptied before each run.
    state: PathBuf,
    found: Vec<(Competitor, std::result::Result<String, String>)>,
}

impl Competitors {
    /// Detects all clients, and installs the official clients below `perf/peers` if they are missing.
    pub(crate) fn find(ringlift: Option<PathBuf>, state: &Path) -> Result<Competitors> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let this = env::current_exe()?;
        let target = this.ancestors().nth(2).ok_or("this program is not in a target folder")?.to_owned();
        let folder = root.join("peers");
        fs::create_dir_all(&folder)?;
        let mut competitors =
            Competitors { folder, target, given: ringlift, this, state: state.to_owned(), found: Vec::new() };
        competitors.found = Competitor::ALL
            .map(|competitor| (competitor, competitors.detect(competitor).map_err(|error| error.to_string())))
            .into();
        Ok(competitors)
    }

    /// Returns the version of each client, or the reason why it is missing.
    pub(crate) fn found(&self) -> &[(Competitor, std::result::Result<String, String>)] {
        &self.found
    }

    /// Returns the reason why a competitor is missing, or `None` if it is installed.
    pub(crate) fn unavailable_reason(&self, competitor: Competitor) -> Option<&str> {
        let (_, found) = self.found.iter().find(|(found, _)| *found == competitor)?;
        found.as_ref().err().map(String::as_str)
    }

    fn detect(&self, competitor: Competitor) -> Result<String> {
        match competitor {
            Competitor::Ringlift => self.build_ringlift(),
            Competitor::Sendfile
            | Competitor::SendfileRanges
            | Competitor::Sealing
            | Competitor::ReadDirect => Ok("in this program".to_owned()),
            Competitor::Reqwest => locked_version("reqwest"),
            Competitor::Curl => first_line(Command::new("curl").arg("--version")),
            Competitor::CurlSplit => {
                first_line(Command::new("curl").arg("--version"))?;
                first_line(Command::new("split").arg("--version"))
            }
            Competitor::Node => self.install_node_client(),
            Competitor::Python => self.install_python_client(),
        }
    }

    fn ringlift_path(&self) -> PathBuf {
        self.given.clone().unwrap_or_else(|| self.target.join("release/ringlift"))
    }

    fn build_ringlift(&self) -> Result<String> {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--release", "--quiet", "--bin", "ringlift", "--manifest-path"]);
        cargo
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
            .arg("--target-dir")
            .arg(&self.target);
        if self.given.is_none() {
            quietly(&mut cargo)?;
        }
        first_line(Command::new(self.ringlift_path()).arg("--version"))
    }

    fn install_node_client(&self) -> Result<String> {
        let package = self.folder.join("node_modules/@api.video/nodejs-client/package.json");
        let node = first_line(Command::new("node").arg("--version"))?;
        if !package.exists() {
            eprintln!("installing {} ...", Competitor::Node.name());
            let mut npm = Command::new("npm");
            npm.args(["install", "--no-audit", "--no-fund", "--no-save", "--prefix"]).arg(&self.folder);
            quietly(npm.arg("@api.video/nodejs-client"))?;
        }
        let package: serde_json::Value = serde_json::from_slice(&fs::read(package)?)?;
        Ok(format!("{}, node {node}", package["version"].as_str().unwrap_or("unknown")))
    }

    fn install_python_client(&self) -> Result<String> {
        let python = self.python();
        if !self.folder.join("python/installed").exists() {
            eprintln!("installing {} ...", Competitor::Python.name());
            quietly(Command::new("python3").args(["-m", "venv"]).arg(self.folder.join("python")))?;
            quietly(Command::new(&python).args(["-m", "pip", "install", "--quiet", "api.video"]))?;
            fs::write(self.folder.join("python/installed"), "")?;
        }
        let version = "import importlib.metadata as m, platform; \
                       print(m.version('api.video') + ', Python ' + platform.python_version())";
        first_line(Command::new(&python).args(["-c", version]))
    }

    fn python(&self) -> PathBuf {
        self.folder.join("python/bin/python")
    }
}

/// Command lines.
impl Competitors {
    /// Returns the command that uploads the load.
    pub(crate) fn command(&self, competitor: Competitor, load: &Load<'_>) -> Result<Command> {
        let mut command = match competitor {
            Competitor::Ringlift => self.ringlift(load)?,
            Competitor::Sendfile => self.own("sendfile", [load.file.into(), load.url.into()]),
            Competitor::SendfileRanges => {
                let mut command = self.own("sendfile", [load.file.into(), load.url.into()]);
                command.arg("--request-bytes").arg(load.chunk_bytes.to_string());
                command
            }
            Competitor::Sealing => self.own("seal", [load.file.into(), load.url.into()]),
            Competitor::ReadDirect => self.own("read-direct", [load.file.into()]),
            Competitor::Reqwest => {
                self.own("reqwest", [load.file.into(), load.url.into(), load.chunk_bytes.to_string().into()])
            }
            Competitor::Curl => curl(load),
            Competitor::CurlSplit => self.script("sh", "split-and-curl.sh", load),
            Competitor::Python => self.script(self.python(), "upload.py", load),
            Competitor::Node => {
                let mut node = self.script("node", "upload.cjs", load);
                node.env("NODE_PATH", self.folder.join("node_modules"));
                node
            }
        };
        command.env("APIVIDEO_API_KEY", API_KEY);
        Ok(command)
    }

    fn ringlift(&self, load: &Load<'_>) -> Result<Command> {
        let mut command = self.bare_ringlift(load.url, load.ca)?;
        command.args(["--mode", "bytes", "--chunk-size", &load.chunk_bytes.to_string()]);
        command.args(["--concurrency", &load.lanes.to_string()]);
        command.args(load.options);
        command.args(env::var("PERF_RINGLIFT_ARGS").unwrap_or_default().split_whitespace());
        command.arg(load.file);
        Ok(command)
    }

    fn bare_ringlift(&self, url: &str, ca: Option<&Path>) -> Result<Command> {
        self.empty_state()?;
        let mut command = self.subcommand("upload", url);
        if let Some(ca) = ca {
            command.arg("--ca-cert").arg(ca);
        }
        Ok(command)
    }

    fn empty_state(&self) -> Result<()> {
        if self.state.exists() {
            fs::remove_dir_all(&self.state)?;
        }
        Ok(fs::create_dir_all(&self.state)?)
    }

    fn subcommand(&self, name: &str, url: &str) -> Command {
        let mut command = Command::new(self.ringlift_path());
        command.env("XDG_STATE_HOME", &self.state).env("XDG_CONFIG_HOME", &self.state);
        command.args([name, "--quiet", "--endpoint-url", url]);
        command
    }

    /// Returns a subcommand of ringlift with an upload token and an empty state folder.
    pub(crate) fn ringlift_for(&self, subcommand: &str, url: &str) -> Result<Command> {
        self.empty_state()?;
        Ok(self.ringlift_again(subcommand, url))
    }

    /// Returns a subcommand of ringlift with an upload token and the state of the run before.
    pub(crate) fn ringlift_again(&self, subcommand: &str, url: &str) -> Command {
        let mut command = self.subcommand(subcommand, url);
        command.env("RINGLIFT_UPLOAD_TOKEN", UPLOAD_TOKEN);
        command
    }

    /// Returns the command that uploads all files in one process, one request each, with an upload token.
    pub(crate) fn ringlift_many(&self, files: &[PathBuf], url: &str, ca: Option<&Path>) -> Result<Command> {
        let mut command = self.bare_ringlift(url, ca)?;
        command.env("RINGLIFT_UPLOAD_TOKEN", UPLOAD_TOKEN).args(files);
        Ok(command)
    }

    /// Returns the same with `curl --parallel` and its default number of connections.
    pub(crate) fn curl_many(
        &self,
        files: &[PathBuf],
        url: &str,
        ca: Option<&Path>,
        config: &Path,
    ) -> Result<Command> {
        let mut text = std::io::BufWriter::new(fs::File::create(config)?);
        for (index, file) in files.iter().enumerate() {
            let next = if index == 0 { "" } else { "next\n" };
            let file = file.display();
            writeln!(text, "{next}url = \"{url}/upload?token={UPLOAD_TOKEN}\"\nform = \"file=@{file}\"")?;
            writeln!(text, "silent\nshow-error\nfail\noutput = \"/dev/null\"")?;
            if let Some(ca) = ca {
                writeln!(text, "cacert = \"{}\"", ca.display())?;
            }
        }
        text.flush()?;
        let mut command = Command::new("curl");
        command.args(["--parallel", "--config"]).arg(config);
        Ok(command)
    }

    pub(crate) fn own<const N: usize>(&self, what: &str, arguments: [OsString; N]) -> Command {
        let mut command = Command::new(&self.this);
        command.arg(what).args(arguments);
        command
    }

    fn script(&self, interpreter: impl Into<OsString>, script: &str, load: &Load<'_>) -> Command {
        let mut command = Command::new(interpreter.into());
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script));
        command.arg(load.url).arg(load.file).arg(load.chunk_bytes.to_string());
        command
    }
}

fn curl(load: &Load<'_>) -> Command {
    let mut file = OsString::from("file=@");
    file.push(load.file);
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--output", "/dev/null"]);
    command.args(["--user", &format!("{API_KEY}:"), "--form"]).arg(file);
    if let Some(ca) = load.ca {
        command.arg("--cacert").arg(ca);
    }
    command.arg(format!("{}/videos/vi0/source", load.url));
    command
}

fn quietly(command: &mut Command) -> Result<()> {
    first_line(command).map(drop)
}

/// Runs a program and returns the first line of its output. Fails if the program fails.
fn first_line(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_owned();
    let output = command.output().map_err(|error| format!("{}: {error}", name.display()))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{} failed: {}", name.display(), words.lines().last().unwrap_or_default()).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}

fn locked_version(package: &str) -> Result<String> {
    let lock = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock"))?;
    let entry = lock.split("[[package]]").find(|entry| entry.contains(&format!("name = \"{package}\"\n")));
    let version = entry.and_then(|entry| entry.lines().find_map(|line| line.strip_prefix("version = ")));
    Ok(version.ok_or("it is not in Cargo.lock")?.trim_matches('"').to_owned())
}

const API_KEY: &str = "perf";
const UPLOAD_TOKEN: &str = "toPerf";
