//! Config files: the default place, profiles, precedence and errors.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::command::{CommandOutput, ringlift, ringlift_for_any_user, run};
use crate::support::{MIB, Sample};

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const NO_SUCH_FILE: i32 = 4;
const NOBODY: u32 = 65534;

/// A configuration directory and a file to plan.
struct Place {
    folder: tempfile::TempDir,
    sample: Sample,
}

impl Place {
    fn new(config: &str) -> Place {
        let place = Place { folder: tempfile::tempdir().unwrap(), sample: Sample::new(40 * MIB) };
        fs::create_dir_all(place.default_file().parent().unwrap()).unwrap();
        fs::write(place.default_file(), config).unwrap();
        place
    }

    fn default_file(&self) -> PathBuf {
        self.folder.path().join("ringlift/config.toml")
    }

    fn other_file(&self, config: &str) -> PathBuf {
        let path = self.folder.path().join("other.toml");
        fs::write(&path, config).unwrap();
        path
    }

    /// Returns the command that plans the file, with the directory as `XDG_CONFIG_HOME`.
    fn command(&self) -> Command {
        let mut command = ringlift();
        command.env("XDG_CONFIG_HOME", self.folder.path()).args(["upload", "--json", "--dry-run"]);
        command.arg(self.sample.path());
        command
    }

    fn plan(&self, args: &[&str], environment: &[(&str, &str)]) -> Value {
        let ran = run(self.command().args(args).envs(environment.iter().copied())).done();
        let mut plan = ran.event("planned");
        // Two runs plan the same at different times.
        plan["time"].take();
        plan
    }

    fn chunk_mib(&self, args: &[&str], environment: &[(&str, &str)]) -> u64 {
        self.plan(args, environment)["chunk_bytes"].as_u64().unwrap() / MIB
    }

    fn refused(&self, args: &[&str], texts: &[&str]) -> CommandOutput {
        run(self.command().args(args)).failed(USAGE, texts)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_default_file_is_read_and_another_one_or_none_replaces_it() {
    let place = Place::new("chunk-size = \"20MiB\"");
    let other = place.other_file("chunk-size = \"10MiB\"");
    assert_eq!(place.chunk_mib(&[], &[]), 20);
    assert_eq!(place.chunk_mib(&["--config", text(&other)], &[]), 10);
    assert_eq!(place.chunk_mib(&[], &[("RINGLIFT_CONFIG", text(&other))]), 10);
    // An empty variable counts as unset.
    assert_eq!(place.chunk_mib(&[], &[("RINGLIFT_CONFIG", "")]), 20);
    let automatic = place.chunk_mib(&["--config", ""], &[]);
    assert!(automatic < 10, "{automatic}");
    assert_eq!(place.chunk_mib(&["--config", "none"], &[]), automatic);
    assert_eq!(place.chunk_mib(&[], &[("RINGLIFT_CONFIG", "none")]), automatic);
    // A relative directory depends on the working directory, and is ignored.
    assert_eq!(place.chunk_mib(&[], &[("XDG_CONFIG_HOME", "relative")]), automatic);
}

#[test]
fn the_default_file_is_also_found_in_the_home_directory() {
    let place = Place::new("");
    let home = place.folder.path().join("home");
    fs::create_dir_all(home.join(".config/ringlift")).unwrap();
    fs::write(home.join(".config/ringlift/config.toml"), "chunk-size = \"20MiB\"").unwrap();
    let environment = [("XDG_CONFIG_HOME", ""), ("HOME", text(&home))];
    assert_eq!(place.chunk_mib(&[], &environment), 20);
    // As for a system user.
    for home in ["/nonexistent", "/dev/null"] {
        place.plan(&[], &[("XDG_CONFIG_HOME", ""), ("HOME", home)]);
    }
}

#[test]
fn a_profile_overrides_the_file_and_is_overridden_by_the_environment_and_flags() {
    let place = Place::new(
        "chunk-size = \"10MiB\"\nmode = \"bytes\"\n[upload]\nchunk-size = \"15MiB\"\n\
         [profile.fast]\nchunk-size = \"20MiB\"\n[profile.fast.upload]\nmode = \"parts\"\n\
         [profile.other]\nretries = 1",
    );
    assert_eq!(place.chunk_mib(&[], &[]), 15);
    let plan = place.plan(&["--profile", "fast"], &[]);
    assert_eq!((&plan["chunk_bytes"], &plan["mode"]), (&(20 * MIB).into(), &"parts".into()));
    assert_eq!(place.plan(&[], &[("RINGLIFT_PROFILE", "fast")]), plan);
    assert_eq!(place.chunk_mib(&["--profile", "other"], &[("RINGLIFT_PROFILE", "fast")]), 15);
    let environment = [("RINGLIFT_PROFILE", "fast"), ("RINGLIFT_CHUNK_SIZE", "25M")];
    assert_eq!(place.chunk_mib(&[], &environment), 25);
    assert_eq!(place.chunk_mib(&["--chunk-size", "30M"], &environment), 30);
}

#[test]
fn the_stronger_source_decides_between_the_sandbox_and_a_url() {
    let place = Place::new("endpoint-url = \"http://base.example\"\n[profile.test]\nsandbox = true");
    let endpoint = |args: &[&str], environment: &[(&str, &str)]| {
        place.plan(args, environment)["endpoint_url"].as_str().unwrap().to_owned()
    };
    assert_eq!(endpoint(&[], &[]), "http://base.example");
    assert!(endpoint(&["--profile", "test"], &[]).contains("sandbox"));
    assert!(endpoint(&[], &[("RINGLIFT_SANDBOX", "1")]).contains("sandbox"));
    // `false` chooses nothing, so the file still decides.
    assert_eq!(endpoint(&[], &[("RINGLIFT_SANDBOX", "false")]), "http://base.example");
    let flag = ["--profile", "test", "--endpoint-url", "http://flag.example"];
    assert_eq!(endpoint(&flag, &[]), "http://flag.example");
}

#[test]
fn an_unknown_key_is_an_error_that_names_the_nearest_one() {
    let place = Place::new("");
    for (config, texts) in [
        ("chunksize = 1", &["unknown key `chunksize`", "did you mean `chunk-size`"][..]),
        ("[uplod]\nretries = 1", &["unknown key `uplod`", "`upload`"]),
        ("[upload]\ntags = [\"a\"]", &["unknown key `tags`", "`tag`"]),
        ("[profile.x]\nretrys = 1", &["profile x", "unknown key `retrys`", "`retries`"]),
        ("[profile.x.video.list]\npage-sise = 1", &["profile x", "`page-size`"]),
        ("[serve]\nretries = 1", &["unknown key `retries`"]),
        ("profile = \"x\"", &["--profile"]),
        ("[profile]\nx = 1", &["profile.x", "table"]),
        ("[profile.x.profile.y]\nretries = 1", &["profile x"]),
        ("upload-tokn = \"hunter2\"", &["`upload-token`"]),
        ("[upload-token]\nhunter2 = 1", &["upload-token"]),
    ] {
        fs::write(place.default_file(), config).unwrap();
        let ran = place.refused(&[], texts);
        assert!(ran.stderr.contains(text(&place.default_file())), "{}", ran.stderr);
        assert!(!ran.stderr.contains("hunter2") && !ran.stdout.contains("hunter2"), "{ran:?}");
    }
}

#[test]
fn a_missing_profile_is_an_error_that_names_the_others() {
    let place = Place::new("[profile.staging]\nretries = 1\n[profile.lab]\nretries = 1");
    place.refused(&["--profile", "stagin"], &["no profile `stagin`", "`staging`"]);
    place.refused(&["--profile", "production"], &["no profile `production`", "lab", "staging"]);
    place.refused(&["--profile", "staging", "--config", "none"], &["no profile", "--config"]);
    let other = place.other_file("");
    place.refused(&["--profile", "staging", "--config", text(&other)], &["[profile.staging]"]);
    fs::remove_file(place.default_file()).unwrap();
    place.refused(&["--profile", "staging"], &["no config file", text(&place.default_file())]);
}

#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let place = Place::new("");
    let folder = text(place.folder.path());
    place.refused(&["--config", folder], &[folder, "directory"]);
    place.refused(&["--config", "/dev/zero"], &["/dev/zero", "1 MiB"]);
    let failed = |code, args: &[&str], texts: &[&str]| run(place.command().args(args)).failed(code, texts);
    failed(NO_SUCH_FILE, &["--config", "/nowhere/config.toml"], &["/nowhere/config.toml"]);
    fs::write(place.default_file(), b"retries = 1 # \xff").unwrap();
    place.refused(&[], &["UTF-8", text(&place.default_file())]);
    fs::remove_file(place.default_file()).unwrap();
    // A directory in place of the default file.
    fs::create_dir(place.default_file()).unwrap();
    place.refused(&[], &["directory", text(&place.default_file())]);
    fs::remove_dir(place.default_file()).unwrap();
    // A loop of links is no missing file.
    std::os::unix::fs::symlink(place.default_file(), place.default_file()).unwrap();
    failed(FAILED, &["--config", text(&place.default_file())], &["links"]);
}

#[test]
fn a_default_file_out_of_reach_is_ignored_and_an_unreadable_one_is_an_error() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = Place::new("retries = 1");
    let run_as_nobody = || {
        let (_binary, mut command) = ringlift_for_any_user();
        run(command
            .uid(NOBODY)
            .gid(NOBODY)
            .env("XDG_CONFIG_HOME", place.folder.path())
            .args(["completion", "bash"]))
    };
    // As for a service that was started with the environment of root.
    run_as_nobody().done();
    fs::set_permissions(place.folder.path(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(place.default_file(), Permissions::from_mode(0o600)).unwrap();
    run_as_nobody().failed(FAILED, &[text(&place.default_file()), "ermission"]);
}

#[test]
fn the_demonstration_ignores_the_values_of_the_user() {
    let place = Place::new("[upload]\nsandbox = true\ntitle = \"T\"\nbwlimit = \"1k\"");
    let mut command = ringlift();
    command.env("XDG_CONFIG_HOME", place.folder.path());
    run(command.args(["demo", "--json", "--size", "6MiB"])).done();
}

#[test]
fn json_output_can_be_set_in_a_profile_also_for_failures() {
    let place = Place::new("[profile.machine]\njson = true");
    let mut command = ringlift();
    command.env("XDG_CONFIG_HOME", place.folder.path()).env("RINGLIFT_PROFILE", "machine");
    let ran = run(command.args(["upload", "--chunk-size", "1M", "x"])).failed(USAGE, &["--chunk-size"]);
    assert_eq!(ran.summary()["exit_code"], USAGE);
}

#[test]
fn a_value_as_a_separate_word_uploads_nothing() {
    let place = Place::new("");
    place.refused(&["--progress", "always"], &["--progress=always", "./always"]);
    place.refused(&["-P", "never"], &["--progress=never"]);
}
