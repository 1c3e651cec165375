//! Merging of values: flag, else environment, else profile, else config file, else default.
//!
//! A value from the environment or the file becomes the default of its flag. So the flag's own parser checks
//! every value, and commands receive only effective values. clap's own `env` is not used: it takes an empty variable
//! for a value, and its errors do not name the variable.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};
use ringlift::Secret;

use super::args::Cli;
use super::client::API_KEY;
use super::config_file::{ConfigChoice, ConfigFile, ConfigLayer, FoundValue, is_flag};
use super::exit::CommandError;
use super::{command_tree, proxy, validate, video_args};

/// Parses the command line, with defaults from the environment and the config file.
///
/// `environment` returns the value of a variable. An empty value counts as unset, because compose files and
/// CI systems leave such values (`NAME: ${NAME}`).
pub(super) fn parse<V: Into<OsString>>(
    argv: &[OsString],
    environment: impl Fn(&str) -> Option<V>,
) -> Result<Cli, CommandError> {
    let environment = |name: &str| environment(name).map(Into::into).filter(|value| !value.is_empty());
    let (matches, typed) = match parse_bare(argv, &environment)? {
        Some(parsed) => parsed,
        None => parse_with_layers(argv, &environment)?,
    };
    finish(matches, &typed, environment)
}

/// Parses a command line without an error, to which no config file adds a value. Returns `None` for any other line, else
/// the same as [`parse_with_layers`].
///
/// The whole tree of commands, parsed three times, took half of the instructions of an upload of one small file.
fn parse_bare(
    argv: &[OsString],
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Option<(ArgMatches, ArgMatches)>, CommandError> {
    let Some(mut command) = command_tree::bare_parser(argv) else { return Ok(None) };
    let typed = match command.try_get_matches_from_mut(argv) {
        Ok(matches) => matches,
        Err(error) if error.kind() == ErrorKind::DisplayVersion => return Err(error.into()),
        Err(_) => return Ok(None),
    };
    let Some((name, _)) = typed.subcommand() else { return Ok(None) };
    let has_variable = |flag: &str| environment(&variable(flag)).is_some();
    // The file and the profile are chosen by flags and variables, too.
    if ["config", "profile"].iter().any(|flag| stands_typed(&typed, flag) || has_variable(flag)) {
        return Ok(None);
    }
    // Errors are those of the whole parse.
    let no_file = matches!(ConfigFile::open(ConfigChoice::new(None, environment), None), Ok(None));
    if !no_file || validate::check_detached_values(&command, &typed, argv).is_err() {
        return Ok(None);
    }
    // The parse has copied the global flags into the subcommand.
    let own = command.find_subcommand(name).into_iter().flat_map(Command::get_arguments);
    let mut flags = command.get_arguments().chain(own.filter(|flag| !flag.is_global_set()));
    if !flags.any(|flag| is_flag(flag) && flag.get_long().is_some_and(has_variable)) {
        return Ok(Some((typed.clone(), typed)));
    }
    let layers = Layers { environment, file: None };
    let filled = command_tree::bare_parser(argv).map(|bare| layers.fill(bare, &typed, &mut Vec::new()));
    let matches = filled.and_then(Result::ok).and_then(|filled| filled.try_get_matches_from(argv).ok());
    Ok(matches.map(|matches| (matches, typed)))
}

/// Parses a command line with defaults from the environment and the config file. Returns the values, and those of the
/// command line alone.
fn parse_with_layers(
    argv: &[OsString],
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<(ArgMatches, ArgMatches), CommandError> {
    let command = command_tree::parser(argv);
    // Only to find the file and the profile: the parse below reports the errors.
    let typed = command.clone().ignore_errors(true).try_get_matches_from(argv)?;
    let given = typed.get_one::<PathBuf>("config").cloned();
    let given = given.or_else(|| environment(&variable("config")).map(PathBuf::from));
    let profile = match typed.get_one::<String>("profile").cloned() {
        Some(name) => Some(name),
        None => environment(&variable("profile")).map(utf8_profile).transpose()?,
    };
    let file = ConfigFile::open(ConfigChoice::new(given.as_deref(), environment), profile.as_deref())?;
    if let Some(file) = &file {
        file.check(&command_tree::documented())?;
    }
    let layers = Layers { environment, file };
    let command = layers.fill(command, &typed, &mut Vec::new())?;
    // Before the parse, which would take such a value for a file.
    validate::check_detached_values(&command, &typed, argv)?;
    Ok((command.try_get_matches_from(argv)?, typed))
}

/// Makes the command of the merged values.
fn finish(
    mut matches: ArgMatches,
    typed: &ArgMatches,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Cli, CommandError> {
    let service = command_tree::service_args(&mut matches)?;
    let mut cli = Cli::from_arg_matches_mut(&mut matches)?;
    cli.global.service = service;
    // After the merge, because values of different sources may contradict each other.
    validate::check(&cli, |flag| stands_typed(typed, flag))?;
    // Invalid UTF-8 becomes a text that is not a valid key, and is refused where the key is needed.
    let text = |name: &str| environment(name).map(|value| value.to_string_lossy().into_owned());
    cli.global.api_key = text(API_KEY).map(Secret::new);
    cli.global.service.proxy = Some(proxy::choose(&cli.command, &cli.global, text)?);
    Ok(cli)
}

fn utf8_profile(name: OsString) -> Result<String, CommandError> {
    name.into_string().map_err(|_| CommandError::usage(format!("{}: it is not UTF-8", variable("profile"))))
}

/// Returns `true` if JSON output was requested. Works with a command line, an environment and a file that do
/// not parse.
pub(super) fn wants_json<V: Into<OsString>>(
    argv: &[OsString],
    environment: impl Fn(&str) -> Option<V>,
) -> bool {
    let environment = |name: &str| environment(name).map(Into::into).filter(|value| !value.is_empty());
    // Every word after `--` is a file.
    let flags = || argv.iter().take_while(|arg| *arg != "--");
    if flags().any(|arg| arg == "--json") {
        return true;
    }
    if let Some(text) = environment(&variable("json")) {
        return text.to_str().and_then(truth) == Some(true);
    }
    // Not clap's matches, because those end at the first error.
    let value = |flag: &str| {
        let (bare, with_value) = (format!("--{flag}"), format!("--{flag}="));
        let named = flags().find_map(|arg| arg.to_str()?.strip_prefix(&*with_value)).map(OsString::from);
        let follows = || flags().skip_while(|arg| *arg != OsStr::new(&bare)).nth(1).cloned();
        named.or_else(follows).or_else(|| environment(&variable(flag)))
    };
    let choice = ConfigChoice::new(value("config").map(PathBuf::from).as_deref(), &environment);
    let profile = value("profile").and_then(|name| name.into_string().ok());
    // The failure may be the profile itself: the rest of the file still decides.
    let file =
        ConfigFile::open(choice.clone(), profile.as_deref()).or_else(|_| ConfigFile::open(choice, None));
    let Ok(Some(file)) = file else { return false };
    let typed = command_tree::parser(argv).ignore_errors(true).try_get_matches_from(argv);
    let section = typed.map(|typed| command_tree::called_path(&typed, &[])).unwrap_or_default();
    let found = [ConfigLayer::Profile, ConfigLayer::Base]
        .into_iter()
        .find_map(|layer| file.find(layer, "json", &section));
    found.is_some_and(|found| truth(&found.joined()) == Some(true))
}

/// Sources of defaults: the environment, then the profile, then the rest of the file.
struct Layers<'a> {
    environment: &'a dyn Fn(&str) -> Option<OsString>,
    file: Option<ConfigFile>,
}

/// A source of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    Environment,
    File(ConfigLayer),
}

impl Layers<'_> {
    /// Sets the defaults of the flags of the called command.
    fn fill(
        &self,
        command: Command,
        typed: &ArgMatches,
        path: &mut Vec<String>,
    ) -> Result<Command, CommandError> {
        let called = typed.subcommand();
        let deepest = command_tree::called_path(typed, path);
        let flags: Vec<Arg> = command.get_arguments().filter(|arg| is_flag(arg)).cloned().collect();
        let mut filled = command.clone();
        for flag in &flags {
            // Most flags have no value in any layer. The search for conflicts compares all pairs of flags.
            let is_set = LAYERS.iter().any(|layer| self.find_in(*layer, flag, &deepest).is_some());
            if !is_set || is_typed(typed, flag) || is_typed_only(flag, path) {
                continue;
            }
            // The command line overrides a conflicting flag from a weaker source.
            let conflicts = conflicts(&command, flag, &flags);
            if conflicts.iter().any(|conflict| is_typed(typed, conflict)) {
                continue;
            }
            if let Some(found) = self.find(flag, &conflicts, &deepest) {
                let texts = accepted(&command, flag, &found)?;
                filled = filled.mut_arg(flag.get_id(), |arg| arg.default_values(texts));
            }
        }
        let Some((name, typed)) = called else { return Ok(filled) };
        let subcommand = filled.find_subcommand(name).cloned();
        let Some(subcommand) = subcommand else { return Ok(filled) };
        path.push(name.to_owned());
        let subcommand = self.fill(subcommand, typed, path)?;
        Ok(filled.mut_subcommand(name, |_| subcommand))
    }

    /// Finds the value of a flag. Flags that exclude each other are resolved together: the source with the
    /// higher precedence decides for all of them.
    fn find(&self, flag: &Arg, conflicts: &[&Arg], path: &[String]) -> Option<FoundValue> {
        for layer in LAYERS {
            if let Some(found) = self.find_in(layer, flag, path) {
                return Some(found);
            }
            // APIVIDEO_API_KEY overrides `api-key-file` of the config file.
            let is_key = flag.get_long() == Some("api-key-file") && (self.environment)(API_KEY).is_some();
            let is_set = |conflict: &&Arg| {
                // `sandbox = false` excludes nothing.
                let is_off = |found: &FoundValue| {
                    matches!(conflict.get_action(), ArgAction::SetTrue)
                        && truth(&found.joined()) == Some(false)
                };
                self.find_in(layer, conflict, path).is_some_and(|found| !is_off(&found))
            };
            if is_key || conflicts.iter().any(is_set) {
                return None;
            }
        }
        None
    }

    fn find_in(&self, layer: Layer, flag: &Arg, path: &[String]) -> Option<FoundValue> {
        let long = flag.get_long()?;
        match layer {
            Layer::Environment => {
                let place = variable(long);
                let texts = vec![(self.environment)(&place)?];
                Some(FoundValue { texts, place })
            }
            Layer::File(layer) => self.file.as_ref()?.find(layer, long, path),
        }
    }
}

/// Returns `true` for a flag that only the command line sets: a default for uploads, such as RINGLIFT_TAG, must not
/// change a video that is already there, and the report of runs must not be replaced by another one.
fn is_typed_only(flag: &Arg, path: &[String]) -> bool {
    match path {
        // A measurement of the production service is asked for each time.
        [command] if command == "tune" => flag.get_long() == Some("production"),
        [video, update] if video == "video" && update == "update" => {
            flag.get_help_heading() == Some(video_args::CHANGES)
        }
        [jobs, report] if jobs == "jobs" && report == "report" => flag.get_long() == Some("report"),
        _ => false,
    }
}

fn is_typed(typed: &ArgMatches, flag: &Arg) -> bool {
    let here = is_typed_here(typed, flag.get_id().as_str());
    here || typed.subcommand().is_some_and(|(_, below)| flag.is_global_set() && is_typed(below, flag))
}

fn is_typed_here(typed: &ArgMatches, id: &str) -> bool {
    matches!(typed.try_contains_id(id), Ok(true)) && typed.value_source(id) == Some(ValueSource::CommandLine)
}

/// Returns `true` if the flag was given on the command line, for any subcommand.
fn stands_typed(typed: &ArgMatches, id: &str) -> bool {
    is_typed_here(typed, id) || typed.subcommand().is_some_and(|(_, below)| stands_typed(below, id))
}

/// Returns the flags that conflict with `flag`. clap records a conflict on one of the two only.
fn conflicts<'a>(command: &Command, flag: &Arg, flags: &'a [Arg]) -> Vec<&'a Arg> {
    let excludes =
        |a: &Arg, b: &Arg| command.get_arg_conflicts_with(a).iter().any(|arg| arg.get_id() == b.get_id());
    flags.iter().filter(|other| excludes(flag, other) || excludes(other, flag)).collect()
}

/// Checks the texts with the flag's own parser before they become its default.
fn accepted(command: &Command, flag: &Arg, found: &FoundValue) -> Result<Vec<OsString>, CommandError> {
    let refused = |why: String| CommandError::usage(format!("{}: {why}", found.place));
    match flag.get_action() {
        ArgAction::SetTrue => {
            let text = found.joined();
            let truth = truth(&text).ok_or_else(|| refused(format!("`{text}` is neither true nor false")))?;
            Ok(vec![truth.to_string().into()])
        }
        ArgAction::Count => {
            let text = found.joined();
            // `verbose = true` stands for a single `-v`.
            let count = truth(&text).map(u8::from).or_else(|| text.parse().ok());
            Ok(vec![count.ok_or_else(|| refused(format!("`{text}` is not a number")))?.to_string().into()])
        }
        _ => match refusal(command, flag, &found.texts) {
            Some(why) => Err(refused(why)),
            None => Ok(found.texts.clone()),
        },
    }
}

/// Returns why the flag's own parser refuses the texts.
fn refusal(command: &Command, flag: &Arg, texts: &[OsString]) -> Option<String> {
    let argv = texts.iter().map(|text| {
        // With `=`: a value that begins with `-` would be taken for a flag.
        let mut arg = OsString::from(format!("--{}=", flag.get_long().unwrap_or_default()));
        arg.push(text);
        arg
    });
    // The flag is tried alone, without the rest of the command line.
    let trial = command.clone().subcommand_required(false).mut_args(|arg| arg.required(false));
    let error = trial.no_binary_name(true).try_get_matches_from(argv).err()?;
    match error.kind() {
        // `required(false)` does not reach sources that one of several flags replaces. Only values that were accepted get
        // as far as this error.
        ErrorKind::MissingRequiredArgument => None,
        ErrorKind::InvalidUtf8 => Some("it is not UTF-8".to_owned()),
        _ => Some(first_line(&error.to_string())),
    }
}

fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Some(true),
        "" | "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn first_line(error: &str) -> String {
    error.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// Returns the environment variable of a flag: `RINGLIFT_CHUNK_SIZE` for `chunk-size`.
fn variable(flag: &str) -> String {
    format!("RINGLIFT_{}", flag.to_ascii_uppercase().replace('-', "_"))
}

const LAYERS: [Layer; 3] =
    [Layer::Environment, Layer::File(ConfigLayer::Profile), Layer::File(ConfigLayer::Base)];

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::io::Write;

    use ringlift::ChunkSize;

    use clap::CommandFactory;

    use super::*;
    use crate::cli::args::CliCommand;
    use crate::cli::upload_args::UploadArgs;

    fn cli(argv: &str, environment: &[(&str, &str)]) -> Result<Cli, CommandError> {
        let argv: Vec<OsString> = argv.split_whitespace().map(OsString::from).collect();
        let find = |name: &str| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        parse(&argv, find)
    }

    fn upload(cli: &Cli) -> &UploadArgs {
        match &cli.command {
            CliCommand::Upload(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn chunk_mib(cli: &Cli) -> u64 {
        match upload(cli).transfer.chunks.chunk_size {
            ChunkSize::Bytes(bytes) => bytes >> 20,
            ChunkSize::Auto => 0,
        }
    }

    fn config(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn a_command_whose_sources_can_come_from_several_flags_has_defaults() {
        let parsed =
            cli("ringlift ingest films", &[("RINGLIFT_SETTLE", "3s"), ("RINGLIFT_TRANSFERS", "2")]).unwrap();
        let CliCommand::Ingest(args) = parsed.command else { panic!("{parsed:?}") };
        assert_eq!(args.watch.settle, Some(std::time::Duration::from_secs(3)));
        let refused = cli("ringlift ingest films", &[("RINGLIFT_SETTLE", "soon")]).unwrap_err().to_string();
        assert!(refused.contains("RINGLIFT_SETTLE"), "{refused}");
    }

    /// The bare parser is only faster. A value that it refuses, or a command that it does not know, is left to the whole one.
    #[test]
    fn the_bare_parser_takes_the_same_values_from_the_environment_as_the_whole_one() {
        let variables = [
            ("RINGLIFT_UPLOAD_TOKEN", "to1"),
            ("RINGLIFT_CHUNK_SIZE", "20M"),
            ("RINGLIFT_TAG", "a"),
            ("RINGLIFT_SANDBOX", "yes"),
            ("RINGLIFT_VERBOSE", "2"),
            ("RINGLIFT_JOURNAL", "j"),
        ];
        let environment = |name: &str| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        };
        for line in [
            "ringlift upload f",
            "ringlift upload --title t --chunk-size 10M f",
            "ringlift upload --quiet --endpoint-url http://a f",
            "ringlift ingest films --retries 3",
            "ringlift resume",
            "ringlift --json work --queue q",
        ] {
            let argv: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            let made = |(matches, typed): (ArgMatches, ArgMatches)| {
                format!("{:?}", finish(matches, &typed, environment))
            };
            let whole = made(parse_with_layers(&argv, &environment).unwrap());
            let bare = parse_bare(&argv, &environment).unwrap();
            // Only a command that is the first word is known to the bare parser.
            assert_eq!(bare.is_some(), !line.contains("--json"), "{line}");
            bare.into_iter().for_each(|parsed| assert_eq!(made(parsed), whole, "{line}"));
        }
        let refused = |name: &str| (name == "RINGLIFT_CHUNK_SIZE").then(|| OsString::from("big"));
        let argv = ["ringlift", "upload", "f"].map(OsString::from);
        assert!(parse_bare(&argv, &refused).unwrap().is_none());
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flag_overrides_environment_and_environment_overrides_file() {
        let file = config("chunk-size = \"30MiB\"\n[upload]\nmode = \"parts\"");
        let path = file.path().to_str().unwrap();
        let environment = [("RINGLIFT_CHUNK_SIZE", "20M"), ("RINGLIFT_CONFIG", path)];
        assert_eq!(chunk_mib(&cli("ringlift upload --chunk-size 10M f", &environment).unwrap()), 10);
        assert_eq!(chunk_mib(&cli("ringlift upload f", &environment).unwrap()), 20);
        assert_eq!(chunk_mib(&cli("ringlift upload f", &environment[1..]).unwrap()), 30);
        assert_eq!(chunk_mib(&cli("ringlift upload f", &[]).unwrap()), 0);
        assert_eq!(chunk_mib(&cli(&format!("ringlift upload --config {path} f"), &[]).unwrap()), 30);
    }

    #[test]
    fn command_section_overrides_the_top_level_for_that_command_only() {
        let file =
            config("retries = 1\n[upload]\nretries = 2\ntag = [\"a\", \"b\"]\n[video.list]\npage-size = 7");
        let path = file.path().to_str().unwrap();
        let retries =
            |argv: &str| cli(&format!("{argv} --config {path}"), &[]).unwrap().global.service.retries;
        assert_eq!(retries("ringlift upload f"), Some(2));
        assert_eq!(retries("ringlift video list"), Some(1));
        assert_eq!(retries("ringlift --retries 3 upload f"), Some(3));
        assert_eq!(retries("ringlift upload f --retries 3"), Some(3));
        let listed = cli(&format!("ringlift video list --config {path}"), &[]).unwrap();
        assert!(format!("{:?}", listed.command).contains("page_size: 7"));
        let tagged = cli(&format!("ringlift upload f --config {path}"), &[]).unwrap();
        assert_eq!(upload(&tagged).description.video().tags, ["a", "b"]);
    }

    #[test]
    fn resume_and_clean_use_the_upload_section() {
        let file =
            config("[upload]\njournal = \"/a\"\nretries = 2\ntag = [\"x\"]\n[clean]\njournal = \"/b\"");
        let path = file.path().to_str().unwrap();
        let cli =
            |argv: &str, environment: &[_]| cli(&format!("{argv} --config {path}"), environment).unwrap();
        let journal = |cli: Cli| match cli.command {
            CliCommand::Resume(args) => args.journal,
            CliCommand::Clean(args) => args.journal,
            other => panic!("{other:?}"),
        };
        let resume = cli("ringlift resume", &[]);
        assert_eq!(resume.global.service.retries, Some(2));
        assert_eq!(journal(resume), Some("/a".into()));
        assert_eq!(journal(cli("ringlift clean", &[])), Some("/b".into()));
        assert_eq!(journal(cli("ringlift resume", &[("RINGLIFT_JOURNAL", "/c")])), Some("/c".into()));
        assert_eq!(cli("ringlift status v", &[]).global.service.retries, None);
    }

    #[test]
    fn the_commands_of_a_queue_share_a_section() {
        let file = config("[ingest]\nqueue = \"/q\"\nreport = \"/r.csv\"\n[work]\nreport = \"/w.csv\"");
        let path = file.path().to_str().unwrap();
        let command = |argv: &str| cli(&format!("{argv} --config {path}"), &[]);
        let shown = |argv: &str| format!("{:?}", command(argv).unwrap().command);
        for argv in ["ringlift ingest f", "ringlift submit f", "ringlift work", "ringlift jobs list"] {
            assert!(shown(argv).contains("queue: Some(\"/q\")"), "{argv}: {}", shown(argv));
        }
        assert!(shown("ringlift ingest f").contains("/r.csv") && shown("ringlift work").contains("/w.csv"));
        // The report of the runs stays.
        assert!(shown("ringlift jobs report").contains("report: None"), "{}", shown("ringlift jobs report"));
    }

    #[test]
    fn boolean_flags_accept_yes_and_no() {
        let json = |value| cli("ringlift upload f", &[("RINGLIFT_JSON", value)]).map(|cli| cli.global.json);
        assert!(json("yes").unwrap() && json("1").unwrap());
        assert!(!json("false").unwrap());
        assert!(json("maybe").unwrap_err().to_string().starts_with("RINGLIFT_JSON: "));
        assert_eq!(cli("ringlift status v", &[("RINGLIFT_VERBOSE", "2")]).unwrap().global.verbose, 2);
    }

    #[test]
    fn flag_overrides_a_conflicting_flag_from_the_environment_or_file() {
        let environment = [("RINGLIFT_SANDBOX", "1")];
        let chosen = cli("ringlift upload --endpoint-url http://a f", &environment).unwrap().global;
        assert_eq!(
            (chosen.service.endpoint_url.as_deref(), chosen.service.sandbox),
            (Some("http://a"), false)
        );
        let file = config("endpoint-url = \"http://b\"");
        let argv = format!("ringlift upload f --config {}", file.path().display());
        let chosen = cli(&argv, &environment).unwrap().global;
        assert_eq!((chosen.service.endpoint_url, chosen.service.sandbox), (None, true));
        assert!(cli("ringlift upload --sandbox --endpoint-url http://a f", &[]).is_err());
    }

    #[test]
    fn invalid_values_are_reported_with_their_origin() {
        let refused = cli("ringlift upload f", &[("RINGLIFT_CHUNK_SIZE", "4M")]).unwrap_err();
        assert!(refused.to_string().starts_with("RINGLIFT_CHUNK_SIZE: invalid value '4M'"), "{refused}");
        for text in ["chunksize = 1", "[upload]\nsize = 1", "[uplod]\nretries = 1", "retries = {}"] {
            let file = config(text);
            let refused =
                cli(&format!("ringlift upload f --config {}", file.path().display()), &[]).unwrap_err();
            assert_eq!(refused.exit().code(), 2, "{text}: {refused}");
        }
        assert_eq!(cli("ringlift upload f --config /no/such", &[]).unwrap_err().exit().code(), 4);
    }

    #[test]
    fn api_key_comes_from_its_variable_and_is_never_printed() {
        let cli = cli("ringlift upload f", &[("APIVIDEO_API_KEY", "hunter2")]).unwrap();
        assert_eq!(cli.global.api_key.as_ref().map(Secret::reveal), Some("hunter2"));
        assert!(!format!("{cli:?}").contains("hunter2"));
    }
}
