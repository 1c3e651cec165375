//! The config file: its place, its sections and its profiles.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Arg, Command};
use toml::{Table, Value};

use super::exit::CommandError;
use super::suggest::nearest;

/// The config file that a command reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ConfigChoice {
    /// No file.
    Nothing,
    /// A file that was asked for, and so must exist.
    Given(PathBuf),
    /// The file in the user's configuration directory, if it exists.
    Default(PathBuf),
}

impl ConfigChoice {
    /// Returns the choice: `given` by a flag or a variable, else the default file. `environment` returns the value
    /// of a variable, or `None` if it is empty.
    pub(super) fn new(given: Option<&Path>, environment: &dyn Fn(&str) -> Option<OsString>) -> ConfigChoice {
        match given {
            // A file of that name is given as `./none`.
            Some(path) if path.as_os_str().is_empty() || path == Path::new("none") => ConfigChoice::Nothing,
            Some(path) => ConfigChoice::Given(path.to_owned()),
            None => config_dir(environment)
                .map_or(ConfigChoice::Nothing, |dir| ConfigChoice::Default(dir.join("ringlift/config.toml"))),
        }
    }
}

/// Returns `$XDG_CONFIG_HOME`, else `~/.config`. A relative path is ignored, because it depends on the working
/// directory (XDG Base Directory Specification).
fn config_dir(environment: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |path: PathBuf| path.is_absolute().then_some(path);
    let given = environment("XDG_CONFIG_HOME").map(PathBuf::from).and_then(absolute);
    let in_home = || environment("HOME").map(|home| PathBuf::from(home).join(".config")).and_then(absolute);
    given.or_else(in_home)
}

/// A value and the place where it was found.
#[derive(Debug)]
pub(super) struct FoundValue {
    pub(super) texts: Vec<OsString>,
    pub(super) place: String,
}

impl FoundValue {
    /// Returns the texts as one, for flags without a value.
    pub(super) fn joined(&self) -> String {
        self.texts.iter().map(|text| text.to_string_lossy()).collect::<Vec<_>>().join(",")
    }
}

/// A part of a config file that sets flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConfigLayer {
    /// The table of the selected profile.
    Profile,
    /// The file without its profiles.
    Base,
}

/// A config file.
#[derive(Debug)]
pub(super) struct ConfigFile {
    path: PathBuf,
    table: Table,
    /// Name of the selected profile.
    profile: Option<String>,
}

impl ConfigFile {
    /// Reads the file and selects a profile. Returns `None` without a file.
    pub(super) fn open(
        choice: ConfigChoice,
        profile: Option<&str>,
    ) -> Result<Option<ConfigFile>, CommandError> {
        let no_profile = |why: String| {
            CommandError::usage(format!("there is no profile `{}`: {why}", profile.unwrap_or_default()))
        };
        let path = match choice {
            ConfigChoice::Given(path) => path,
            ConfigChoice::Default(path) if exists(&path) => path,
            ConfigChoice::Default(path) if profile.is_some() => {
                return Err(no_profile(format!(
                    "there is no config file at {}; give one with --config",
                    path.display()
                )));
            }
            ConfigChoice::Nothing if profile.is_some() => {
                return Err(no_profile("no config file is read; give one with --config".to_owned()));
            }
            ConfigChoice::Default(_) | ConfigChoice::Nothing => return Ok(None),
        };
        let mut file = ConfigFile { table: read(&path)?, path, profile: None };
        if let Some(name) = profile {
            let profiles = file.profiles();
            if profiles.is_none_or(|profiles| !profiles.contains_key(name)) {
                return Err(no_profile(file.known_profiles(name)));
            }
            file.profile = Some(name.to_owned());
        }
        Ok(Some(file))
    }

    fn profiles(&self) -> Option<&Table> {
        self.table.get(PROFILE)?.as_table()
    }

    /// Describes the profiles of the file, for the error about the missing one.
    fn known_profiles(&self, name: &str) -> String {
        let names: Vec<&str> = self.profiles().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        let path = self.path.display();
        match nearest(name, names.iter().copied()) {
            Some(nearest) => format!("{path} has `{nearest}`"),
            None if names.is_empty() => format!("{path} has none; add a table [profile.{name}]"),
            None => format!("{path} has {}", names.join(", ")),
        }
    }

    /// Returns the value for `flag`. The section of the called command takes precedence over the top level.
    pub(super) fn find(&self, layer: ConfigLayer, flag: &str, path: &[String]) -> Option<FoundValue> {
        // The key `profile` holds the profiles, and a file cannot select one of them.
        if flag == PROFILE {
            return None;
        }
        let (table, of) = match layer {
            ConfigLayer::Base => (&self.table, String::new()),
            ConfigLayer::Profile => {
                let name = self.profile.as_deref()?;
                (self.profiles()?.get(name)?.as_table()?, format!(" of profile {name}"))
            }
        };
        let shared =
            SHARED_SECTIONS.iter().find(|(name, _)| path.first().is_some_and(|called| called == name));
        let from_shared = shared.and_then(|(_, section)| find_in(table, flag, &[(*section).to_owned()]));
        let found = find_in(table, flag, path).or(from_shared).or(table.get(flag))?;
        Some(FoundValue { texts: texts(found), place: format!("{flag}{of} in {}", self.path.display()) })
    }

    /// Rejects unknown keys, which would otherwise be ignored silently, also those of other profiles.
    pub(super) fn check(&self, root: &Command) -> Result<(), CommandError> {
        let refused = |why: String| CommandError::usage(format!("{}: {why}", self.path.display()));
        for (key, value) in &self.table {
            match value {
                Value::Table(profiles) if key == PROFILE => {
                    for (name, profile) in profiles {
                        let Value::Table(profile) = profile else {
                            return Err(refused(format!("profile.{name}: use a table, [profile.{name}]")));
                        };
                        check_section(profile, root, root)
                            .map_err(|why| refused(format!("profile {name}: {why}")))?;
                    }
                }
                _ if key == PROFILE => {
                    return Err(refused(
                        "profile: select a profile with --profile or RINGLIFT_PROFILE".to_owned(),
                    ));
                }
                _ => check_key(key, value, root, root).map_err(refused)?,
            }
        }
        Ok(())
    }
}

/// Returns `true` if the default file exists. A directory that may not be searched, such as another user's home
/// directory, counts as one without a file.
fn exists(path: &Path) -> bool {
    fs::metadata(path).is_ok()
}

fn read(path: &Path) -> Result<Table, CommandError> {
    let failed = |error| CommandError::io(format!("read the config file {}", path.display()), error);
    let refused = |why: String| CommandError::usage(format!("{}: {why}", path.display()));
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(failed)?;
    // A byte more than the limit distinguishes a larger file from one that just fits.
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| match error.kind() {
        // open(2) takes a folder, read(2) does not.
        io::ErrorKind::IsADirectory => refused("is a directory: give a file with --config".to_owned()),
        _ => failed(error),
    })?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(refused("is larger than 1 MiB: this is not a config file".to_owned()));
    }
    let text = String::from_utf8(bytes).map_err(|_| refused("the file is not UTF-8".to_owned()))?;
    // Some editors begin a UTF-8 file with a byte order mark.
    text.trim_start_matches('\u{feff}').parse().map_err(|error: toml::de::Error| {
        // The error's own `Display` prints the line, which may contain a secret.
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        refused(format!("line {}: {}", before.matches('\n').count() + 1, error.message()))
    })
}

/// Returns the value in the innermost section that has one.
fn find_in<'a>(table: &'a Table, flag: &str, path: &[String]) -> Option<&'a Value> {
    let mut section = table;
    let mut found = None;
    for name in path {
        let Some(inner) = section.get(name).and_then(Value::as_table) else { break };
        section = inner;
        found = section.get(flag).or(found);
    }
    found
}

fn check_section(section: &Table, command: &Command, root: &Command) -> Result<(), String> {
    section.iter().try_for_each(|(key, value)| check_key(key, value, command, root))
}

fn check_key(key: &str, value: &Value, command: &Command, root: &Command) -> Result<(), String> {
    if let (Value::Table(section), Some(subcommand)) = (value, command.find_subcommand(key)) {
        return check_section(section, subcommand, root);
    }
    let Some(flag) = flag_in(command, key).or_else(|| own_flag(root, key)) else {
        let meant = suggestion(key, command, root);
        return Err(format!("unknown key `{key}`{meant}"));
    };
    match key {
        "config" => Err("a config file cannot include another one: remove `config`".to_owned()),
        PROFILE => Err("a profile cannot include another one: remove `profile`".to_owned()),
        _ => check_value(value, takes_pairs(flag)).map_err(|why| format!("{key}: {why}")),
    }
}

/// Returns the key that was probably meant, as the end of a message.
fn suggestion(key: &str, command: &Command, root: &Command) -> String {
    let mut names = Vec::new();
    collect_names(command, &mut names);
    names.extend(own_flags(root).filter_map(Arg::get_long));
    let Some(first) = nearest(key, names.iter().copied()) else { return String::new() };
    // `retrys` is nearer to `retry`, and may be the plural.
    match nearest(key, names.iter().copied().filter(|name| *name != first)) {
        Some(second) => format!(" (did you mean `{first}` or `{second}`?)"),
        None => format!(" (did you mean `{first}`?)"),
    }
}

fn collect_names<'a>(command: &'a Command, names: &mut Vec<&'a str>) {
    names.extend(own_flags(command).filter_map(Arg::get_long));
    for subcommand in command.get_subcommands() {
        names.push(subcommand.get_name());
        collect_names(subcommand, names);
    }
}

/// Rejects values whose text no flag accepts, such as a date or `{ a = 1 }`.
fn check_value(value: &Value, takes_pairs: bool) -> Result<(), &'static str> {
    let is_plain = |value: &Value| {
        matches!(value, Value::String(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_))
    };
    let is_key = |key: &String| !key.is_empty() && !key.contains('=');
    match value {
        Value::Table(pairs) if takes_pairs => {
            let are_pairs = pairs.iter().all(|(key, value)| is_key(key) && is_plain(value));
            are_pairs.then_some(()).ok_or("use strings, numbers and booleans, under keys without `=`")
        }
        Value::Array(values) if values.iter().all(is_plain) => Ok(()),
        value if is_plain(value) => Ok(()),
        _ if takes_pairs => Err("use an array of \"KEY=VALUE\", or a table of keys and values"),
        _ => Err("use a string, a number, a boolean, or an array of them"),
    }
}

/// Returns `true` if the flag takes `KEY=VALUE`, which may be a TOML table.
fn takes_pairs(flag: &Arg) -> bool {
    flag.get_value_names().is_some_and(|names| names.iter().any(|name| name.as_str() == "KEY=VALUE"))
}

fn texts(value: &Value) -> Vec<OsString> {
    match value {
        Value::String(text) => vec![text.into()],
        Value::Array(values) => values.iter().flat_map(texts).collect(),
        Value::Table(pairs) => pairs.iter().flat_map(|(key, value)| pair(key, value)).collect(),
        other => vec![other.to_string().into()],
    }
}

fn pair(key: &str, value: &Value) -> Vec<OsString> {
    let joined = |text: OsString| {
        let mut pair = OsString::from(format!("{key}="));
        pair.push(text);
        pair
    };
    texts(value).into_iter().map(joined).collect()
}

/// Returns the flag of `command` or of a subcommand.
fn flag_in<'a>(command: &'a Command, flag: &str) -> Option<&'a Arg> {
    let below = || command.get_subcommands().find_map(|subcommand| flag_in(subcommand, flag));
    own_flag(command, flag).or_else(below)
}

fn own_flag<'a>(command: &'a Command, flag: &str) -> Option<&'a Arg> {
    own_flags(command).find(|arg| arg.get_long() == Some(flag))
}

fn own_flags(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| is_flag(arg))
}

/// Returns `true` for a flag that a config file may set.
pub(super) fn is_flag(arg: &Arg) -> bool {
    arg.get_long().is_some_and(|long| !["help", "version"].contains(&long))
}

const PROFILE: &str = "profile";

/// Commands, and the section that they use besides their own: they need the same journal, queue and service.
const SHARED_SECTIONS: [(&str, &str); 5] =
    [("resume", "upload"), ("clean", "upload"), ("submit", "ingest"), ("work", "ingest"), ("jobs", "ingest")];

/// A config file has a few lines. A device file given by mistake has no end.
const MAX_FILE_BYTES: u64 = 1 << 20;
