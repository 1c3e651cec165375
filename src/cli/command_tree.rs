//! The tree of commands: which command accepts which flags, and which of them its short help shows.
//!
//! The service flags exist in two shapes. A command line may have them before or after the name of the command,
//! so its parser declares them globally. A global flag would also be accepted by the commands that never talk to
//! the service, so the parser of those commands, the manual and the completions declare them per command.

use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, CommandFactory, FromArgMatches};

use super::args::{Cli, GlobalArgs, ResumeArgs, StatusArgs};
use super::ingest_args::{IngestArgs, SubmitArgs, WorkArgs};
use super::service_args::{SERVICE, ServiceArgs};
use super::upload_args::UploadArgs;

/// Returns a parser of this command line that has no texts of help, for the commands that begin uploads or that programs
/// repeat.
///
/// A line that it accepts means the same to [`parser`]. The errors and the help of other lines are those of [`parser`]; its
/// whole tree takes ten times as long.
pub(super) fn bare_parser(argv: &[OsString]) -> Option<Command> {
    let root = Command::new("ringlift").subcommand_required(true);
    let name = argv.get(1)?.to_str()?;
    if argv.len() == 2 && ["--version", "-V"].contains(&name) {
        return Some(root.version(env!("CARGO_PKG_VERSION")));
    }
    let augment = BARE.iter().find(|(command, _)| *command == name)?.1;
    // The name is owned by the tree: words of a command line do not live as long.
    let called = augment(Command::new(name.to_owned()));
    Some(with_global_service_flags(GlobalArgs::augment_args(root)).subcommand(called))
}

/// Returns the parser of a command line.
pub(super) fn parser(argv: &[OsString]) -> Command {
    let tree = Cli::command();
    let first = argv.get(1).and_then(|word| word.to_str());
    // The first word of most command lines names the command. The name is then known without a look at the flags.
    if let Some(called) =
        first.filter(|name| tree.get_subcommands().any(|command| command.get_name() == *name))
    {
        let tree = without_uncalled(tree, &argv[1..2]);
        return with_short_help(if OFFLINE.contains(&called) {
            tree
        } else {
            with_global_service_flags(tree)
        });
    }
    // Neither the help of the program nor its version has the flags of a command.
    if argv.len() == 2 && first.is_some_and(|flag| ["--help", "-h", "--version", "-V"].contains(&flag)) {
        return with_short_help(only_called(tree, |_| false));
    }
    let global = with_global_service_flags(without_uncalled(tree, argv));
    // Without help and version, which would end this first look at the command line.
    let tolerant = global.clone().ignore_errors(true).disable_help_flag(true).disable_help_subcommand(true);
    let is_offline = match tolerant.disable_version_flag(true).try_get_matches_from(argv) {
        Ok(matches) => match matches.subcommand_name() {
            Some(name) => OFFLINE.contains(&name),
            None => !has_service_flag(&matches),
        },
        Err(_) => true,
    };
    with_short_help(if is_offline { without_uncalled(documented(), argv) } else { global })
}

/// Leaves only the name and the description of commands that no word of the command line names.
fn without_uncalled(command: Command, argv: &[OsString]) -> Command {
    let is_named = |command: &Command| argv.iter().any(|word| word == command.get_name());
    // Without a called command, an error suggests the command that has an unknown flag.
    if command.get_subcommands().any(is_named) { only_called(command, is_named) } else { command }
}

/// Leaves only the name and the description of other commands. Each parse copies the whole tree, which takes milliseconds.
fn only_called(command: Command, is_called: impl Fn(&Command) -> bool) -> Command {
    let mut order = 0..;
    command.mut_subcommands(|command| {
        // The help lists the commands in the order of their definition.
        let place = order.next().unwrap_or(usize::MAX);
        if is_called(&command) {
            return command;
        }
        let name =
            Command::new(command.get_name().to_owned()).hide(command.is_hide_set()).display_order(place);
        command.get_about().cloned().into_iter().fold(name, Command::about)
    })
}

/// Returns the tree in which every command has exactly the flags that it accepts.
pub(super) fn documented() -> Command {
    Cli::command().mut_subcommands(|command| {
        if OFFLINE.contains(&command.get_name()) { command } else { with_service_flags(command) }
    })
}

/// Returns the service flags of a parsed command line; the defaults for a command without such flags.
pub(super) fn service_args(matches: &mut ArgMatches) -> Result<ServiceArgs, clap::Error> {
    // Clap reports an unknown id as an error in debug builds only, and as absent in others.
    if matches!(matches.try_contains_id(SOME_SERVICE_FLAG), Ok(true)) {
        ServiceArgs::from_arg_matches_mut(matches)
    } else {
        Ok(ServiceArgs::default())
    }
}

/// Returns the names of the called commands, from the outermost one, after those in `path`.
pub(super) fn called_path(typed: &ArgMatches, path: &[String]) -> Vec<String> {
    let mut path = path.to_vec();
    let mut typed = typed;
    while let Some((name, below)) = typed.subcommand() {
        path.push(name.to_owned());
        typed = below;
    }
    path
}

/// Returns the flags themselves: clap's own way of adding them would also replace the description of the command.
fn service_flags() -> Vec<Arg> {
    ServiceArgs::augment_args(Command::new("service")).get_arguments().cloned().collect()
}

fn has_service_flag(matches: &ArgMatches) -> bool {
    service_flags()
        .iter()
        .any(|flag| matches.value_source(flag.get_id().as_str()) == Some(ValueSource::CommandLine))
}

fn with_global_service_flags(command: Command) -> Command {
    command.args(service_flags().into_iter().map(|flag| flag.global(true)))
}

/// Adds the service flags to the commands without subcommands below `command`.
fn with_service_flags(command: Command) -> Command {
    if command.has_subcommands() {
        command.mut_subcommands(with_service_flags)
    } else {
        command.args(service_flags())
    }
}

/// Hides the rarely used flags in the short help, which is `-h`. The long help shows all.
fn with_short_help(command: Command) -> Command {
    let is_own = |flag: &Arg| !flag.is_global_set() && flag.get_help_heading() != Some(SERVICE);
    let has_few = command.get_opts().filter(|flag| is_own(flag)).count() <= MOST_SHORT_FLAGS;
    let command = command.mut_args(|flag| {
        let is_common = COMMON.contains(&flag.get_id().as_str()) || flag.is_positional();
        let is_shown = is_common || has_few && is_own(&flag);
        flag.hide_short_help(!is_shown)
    });
    command.mut_subcommands(with_short_help)
}

/// Adds the flags of a command.
type Augment = fn(Command) -> Command;

/// The commands of [`bare_parser`]. The first word of a command line that names a command calls it.
const BARE: [(&str, Augment); 6] = [
    ("upload", UploadArgs::augment_args),
    ("ingest", IngestArgs::augment_args),
    ("submit", SubmitArgs::augment_args),
    ("work", WorkArgs::augment_args),
    ("resume", ResumeArgs::augment_args),
    ("status", StatusArgs::augment_args),
];

/// Commands that never talk to the service.
const OFFLINE: [&str; 4] = ["demo", "serve", "completion", "man"];

/// Flags that the short help of every command shows.
const COMMON: [&str; 30] = [
    "manifest",
    "files_from",
    "include",
    "exclude",
    "retry",
    "report",
    "drain",
    "queue",
    "pool",
    "monitor",
    "metadata",
    "public",
    "no_tags",
    "dry_run",
    "title",
    "tag",
    "private",
    "video_id",
    "concurrency",
    "transfers",
    "bwlimit",
    "wait",
    "sandbox",
    "json",
    "verbose",
    "quiet",
    "list",
    "source",
    "yes",
    "help",
];

/// A command with at most this many flags shows all of its own: its short help still fits on a screen.
const MOST_SHORT_FLAGS: usize = 12;

/// Stands for all service flags: a parser has either all of them or none, and a switch always has a value.
const SOME_SERVICE_FLAG: &str = "sandbox";

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf<'a>(command: &'a Command, path: &[&str]) -> &'a Command {
        path.iter().fold(command, |command, name| command.find_subcommand(name).unwrap())
    }

    fn has(command: &Command, flag: &str) -> bool {
        command.get_arguments().any(|arg| arg.get_long() == Some(flag))
    }

    fn argv(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn both_trees_are_well_formed() {
        documented().debug_assert();
        parser(&argv("ringlift upload f")).debug_assert();
    }

    #[test]
    fn the_bare_parser_has_the_flags_of_the_whole_one() {
        let flags = |command: &Command| -> Vec<String> {
            command.get_arguments().map(|flag| format!("{flag:?}")).collect()
        };
        // The struct of the whole command line is a group without flags.
        let groups = |command: &Command| -> Vec<String> {
            let groups = command.get_groups().filter(|group| group.get_id() != "Cli");
            groups.map(|group| format!("{group:?}")).collect()
        };
        let shape = |command: &Command| (flags(command), groups(command));
        for (name, _) in BARE {
            let whole = with_global_service_flags(Cli::command());
            let bare = bare_parser(&argv(&format!("ringlift {name} f"))).unwrap();
            assert_eq!(shape(&bare), shape(&whole), "{name}");
            assert_eq!(shape(leaf(&bare, &[name])), shape(leaf(&whole, &[name])), "{name}");
            bare.debug_assert();
        }
    }

    #[test]
    fn the_bare_parser_states_the_version_of_the_whole_one() {
        for flag in ["--version", "-V"] {
            let line = argv(&format!("ringlift {flag}"));
            let bare = bare_parser(&line).unwrap().try_get_matches_from(&line).unwrap_err();
            let whole = Cli::command().try_get_matches_from(&line).unwrap_err();
            assert_eq!((bare.kind(), bare.to_string()), (whole.kind(), whole.to_string()));
        }
    }

    #[test]
    fn a_shorter_tree_has_the_same_help() {
        let mut whole = with_short_help(documented());
        for (flag, text) in [("-h", whole.render_help()), ("--help", whole.render_long_help())] {
            let line = argv(&format!("ringlift {flag}"));
            let shown = parser(&line).try_get_matches_from(&line).unwrap_err();
            assert_eq!(shown.to_string(), text.to_string());
        }
        for command in whole.get_subcommands().filter(|command| !command.has_subcommands()) {
            let line = argv(&format!("ringlift {} --help", command.get_name()));
            let shown = parser(&line).try_get_matches_from(&line).unwrap_err().to_string();
            for flag in command.get_arguments().filter(|flag| !flag.is_hide_set()).filter_map(Arg::get_long) {
                assert!(shown.contains(&format!("--{flag}")), "{} {flag}", command.get_name());
            }
        }
    }

    #[test]
    fn only_commands_that_talk_to_the_service_have_its_flags() {
        let mut tree = documented();
        tree.build();
        for path in
            [&["upload"][..], &["resume"], &["clean"], &["status"], &["video", "list"], &["token", "create"]]
        {
            assert!(has(leaf(&tree, path), "endpoint-url"), "{path:?}");
        }
        for name in OFFLINE {
            let command = leaf(&tree, &[name]);
            assert!(has(command, "json"), "{name}");
            // `serve` has its own, for the key that it requires.
            assert_eq!(has(command, "api-key-file"), name == "serve");
            for flag in ["endpoint-url", "sandbox", "retries", "tpslimit", "min-speed", "ca-cert", "timeout"]
            {
                assert!(!has(command, flag), "{name} --{flag}");
            }
        }
    }

    #[test]
    fn commands_keep_their_own_descriptions() {
        let tree = documented();
        let about = |path: &[&str]| leaf(&tree, path).get_about().unwrap().to_string();
        assert!(about(&["upload"]).starts_with("Upload files"));
        assert!(about(&["video", "list"]).starts_with("List videos"));
    }

    #[test]
    fn the_short_help_of_upload_has_a_dozen_flags_and_the_long_help_has_all() {
        let line = argv("ringlift upload -h");
        let short = parser(&line).try_get_matches_from(line).unwrap_err().to_string();
        let flags = short.lines().filter(|line| line.trim_start().starts_with('-')).count();
        assert!((10..=16).contains(&flags), "{flags}: {short}");
        assert!(short.contains("--title") && !short.contains("--connect-timeout"), "{short}");
        let line = argv("ringlift upload --help");
        let long = parser(&line).try_get_matches_from(line).unwrap_err().to_string();
        for flag in ["--connect-timeout", "--checksum", "--profile", "--title", "ringlift-upload"] {
            assert!(long.contains(flag), "{flag}: {long}");
        }
    }

    #[test]
    fn service_flags_may_stand_before_and_after_the_command() {
        for line in [
            "ringlift --retries 3 upload f",
            "ringlift upload f --retries 3",
            "ringlift video --retries 3 list",
        ] {
            let mut matches = parser(&argv(line)).try_get_matches_from(argv(line)).unwrap();
            assert_eq!(service_args(&mut matches).unwrap().retries, Some(3), "{line}");
        }
    }

    #[test]
    fn other_commands_refuse_service_flags() {
        for line in [
            "ringlift serve --sandbox --data d",
            "ringlift --sandbox serve --data d",
            "ringlift demo --retries 3",
            "ringlift man --endpoint-url http://a",
            "ringlift completion bash --timeout 3s",
        ] {
            let error = parser(&argv(line)).try_get_matches_from(argv(line)).unwrap_err();
            assert_eq!(error.kind(), clap::error::ErrorKind::UnknownArgument, "{line}");
        }
    }
}
