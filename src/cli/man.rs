//! `ringlift man`: prints the manual page, or writes the pages of all commands.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::{Arg, ArgAction, Command};
use clap_mangen::Man;

use super::args::ManArgs;
use super::command_tree;
use super::console::Console;
use super::events::CommandResult;
use super::exit::CommandError;

pub(super) fn run(args: &ManArgs, console: &Console) -> CommandResult {
    match &args.dir {
        Some(dir) => {
            write_all(dir).map_err(|error| CommandError::io(format!("write to {}", dir.display()), error))?
        }
        None => {
            let root = tree();
            console
                .text(&page(&root, &root).map_err(|error| CommandError::io("write the manual page", error))?);
        }
    }
    Ok(None)
}

/// Returns the built tree: names of pages and global flags exist only after the build.
fn tree() -> Command {
    // clap's `help` repeats the tree of commands, each of which would get a second page.
    let mut root = command_tree::documented().disable_help_subcommand(true);
    root.build();
    root
}

fn write_all(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let root = tree();
    for command in all(&root) {
        fs::write(dir.join(format!("{}.{SECTION}", page_name(command))), page(command, &root)?)?;
    }
    Ok(())
}

/// Returns the command and all commands below it.
fn all(command: &Command) -> Vec<&Command> {
    std::iter::once(command).chain(command.get_subcommands().flat_map(all)).collect()
}

fn page_name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn page(command: &Command, root: &Command) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone())
        .title(page_name(command).to_uppercase())
        .section(SECTION)
        .date(DATE)
        .source(format!("ringlift {}", env!("CARGO_PKG_VERSION")))
        .manual("User Commands");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    // No automatic hyphens and no stretched lines: flags and paths must stay as they are typed.
    page.write_all(b".nh\n.ad l\n")?;
    man.render_name_section(&mut page)?;
    synopsis(command, &mut page)?;
    man.render_description_section(&mut page)?;
    options(&man, &mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    help_texts(command, &mut page)?;
    if command.get_name() == root.get_name() {
        section("ENVIRONMENT", ENVIRONMENT, &mut page)?;
        section("FILES", FILES, &mut page)?;
    } else {
        section(
            "ENVIRONMENT",
            "See ringlift(1). Every flag has a variable: RINGLIFT_JSON for --json.",
            &mut page,
        )?;
        section("FILES", "See ringlift(1).", &mut page)?;
    }
    section("EXIT STATUS", EXIT_STATUS, &mut page)?;
    see_also(command, root, &mut page)?;
    Ok(wrapped(&String::from_utf8_lossy(&page)).into_bytes())
}

/// Breaks long lines of filled text, which roff joins again. Requests and examples stay as they are.
fn wrapped(page: &str) -> String {
    let (mut text, mut is_filled) = (String::with_capacity(page.len()), true);
    for line in page.lines() {
        is_filled = line == ".fi" || is_filled && line != ".nf";
        if is_filled && !line.starts_with('.') && line.len() > LONGEST_LINE {
            wrap(line, &mut text);
        } else {
            text.push_str(line);
        }
        text.push('\n');
    }
    text
}

fn wrap(line: &str, text: &mut String) {
    let mut width = 0;
    for word in line.split_ascii_whitespace() {
        if width > 0 && width + word.len() >= LONGEST_LINE {
            // A dot at the start of a line would make it a request.
            text.push_str(if word.starts_with('.') { "\n\\&" } else { "\n" });
            width = 0;
        } else if width > 0 {
            text.push(' ');
            width += 1;
        }
        text.push_str(word);
        width += word.len();
    }
}

/// Writes the flags in the order of the help, with their values, and then the files.
fn synopsis(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    writeln!(
        page,
        ".SH SYNOPSIS\n.B {}",
        escaped(command.get_bin_name().unwrap_or_else(|| command.get_name()))
    )?;
    let shown =
        |arg: &&Arg| !arg.is_hide_set() && !matches!(arg.get_action(), ArgAction::Help | ArgAction::Version);
    for flag in command.get_arguments().filter(|arg| !arg.is_positional()).filter(shown) {
        writeln!(page, "{}", optional(&usage(flag), flag))?;
    }
    for file in command.get_positionals().filter(shown) {
        let more = if matches!(file.get_action(), ArgAction::Append) { "\\|.\\|.\\|." } else { "" };
        writeln!(page, "{}", optional(&format!("\\fI{}\\fR{more}", value(file)), file))?;
    }
    if command.has_subcommands() {
        writeln!(page, "\\fICOMMAND\\fR")?;
    }
    Ok(())
}

/// Writes the flags, without empty lines and repeated breaks: an empty line is vertical space in roff.
fn options(man: &Man, page: &mut Vec<u8>) -> io::Result<()> {
    let mut section = Vec::new();
    man.render_options_section(&mut section)?;
    let mut above: &[u8] = b"";
    for line in section.split_inclusive(|byte| *byte == b'\n') {
        let is_repeated = line == b".br\n" && above == line;
        if line != b"\n" && !is_repeated {
            page.write_all(line)?;
            above = line;
        }
    }
    Ok(())
}

fn optional(usage: &str, arg: &Arg) -> String {
    if arg.is_required_set() { usage.to_owned() } else { format!("[{usage}]") }
}

fn usage(flag: &Arg) -> String {
    let short = flag.get_short().map(|short| format!("\\fB\\-{short}\\fR | "));
    let long = escaped(flag.get_long().unwrap_or_default());
    let value = match flag.get_num_args() {
        Some(count) if !count.takes_values() => String::new(),
        Some(count) if count.min_values() == 0 => format!("[=\\fI{}\\fR]", value(flag)),
        _ => format!(" \\fI{}\\fR", value(flag)),
    };
    format!("{}\\fB\\-\\-{long}\\fR{value}", short.unwrap_or_default())
}

/// Returns the name of the value of a flag or of a positional argument.
fn value(arg: &Arg) -> String {
    let names = arg.get_value_names().unwrap_or_default();
    let names = names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" ");
    escaped(&if names.is_empty() { arg.get_id().as_str().to_uppercase() } else { names })
}

/// Writes the text after the flags: the examples as they are typed, and the rest as notes.
fn help_texts(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let help = command.get_after_long_help().map(|help| help.to_string()).unwrap_or_default();
    let (examples, notes) = match help.strip_prefix("Examples:\n") {
        Some(rest) => rest.split_once("\n\n").unwrap_or((rest, "")),
        None => ("", help.as_str()),
    };
    if !examples.is_empty() {
        section("EXAMPLES", examples, page)?;
    }
    // The manual has sections of its own for the exit codes.
    let notes = notes.split("\n\n").filter(|note| !note.starts_with("Exit codes:")).collect::<Vec<_>>();
    let notes = notes.join("\n\n");
    if notes.is_empty() { Ok(()) } else { section("NOTES", &notes, page) }
}

/// Writes a section. Indented lines are examples and stay as they are; the other lines are filled.
fn section(title: &str, text: &str, page: &mut Vec<u8>) -> io::Result<()> {
    writeln!(page, ".SH {title}")?;
    let mut is_first = true;
    for block in text.split("\n\n") {
        let is_example = block.lines().all(|line| line.starts_with("  "));
        match (is_example, is_first) {
            (true, true) => writeln!(page, ".nf")?,
            (true, false) => writeln!(page, ".PP\n.nf")?,
            (false, true) => {}
            (false, false) => writeln!(page, ".PP")?,
        }
        for line in block.lines() {
            let line = if is_example { line } else { line.trim_start() };
            match line.split_once('\t') {
                // A term and its description.
                Some((term, description)) => {
                    writeln!(page, ".TP\n.B {}\n{}", escaped(term), escaped(description))?
                }
                None if is_example => example(line, page)?,
                None => writeln!(page, "{}", escaped(line))?,
            }
        }
        if is_example {
            writeln!(page, ".fi")?;
        }
        is_first = false;
    }
    Ok(())
}

/// Writes a line of an example, broken as the shell permits.
fn example(line: &str, page: &mut Vec<u8>) -> io::Result<()> {
    let mut rest = line.to_owned();
    while escaped(&rest).len() > LONGEST_LINE
        && let Some(end) = last_break(&rest)
    {
        writeln!(page, "{}", escaped(&format!("{} \\", &rest[..end])))?;
        rest = format!("      {}", &rest[end + 1..]);
    }
    writeln!(page, "{}", escaped(&rest))
}

/// Returns the place of a space outside quotes after which a line is short enough: the last one before a flag or a pipe,
/// or the last one.
fn last_break(line: &str) -> Option<usize> {
    let text = line.len() - line.trim_start().len();
    let is_outside = |end: usize| line[..end].matches('\'').count().is_multiple_of(2);
    // Room for the backslash.
    let is_short = |end: usize| escaped(&line[..end]).len() <= LONGEST_LINE - 3;
    let is_before_flag = |end: usize| line[end..].starts_with(" --") || line[end..].starts_with(" |");
    let spaces = line.match_indices(' ').map(|(index, _)| index).filter(|index| *index > text);
    let ends: Vec<usize> = spaces.filter(|end| is_outside(*end) && is_short(*end)).collect();
    ends.iter().rev().find(|end| is_before_flag(**end)).or(ends.last()).copied()
}

fn see_also(command: &Command, root: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    writeln!(page, ".SH SEE ALSO")?;
    let others = all(root).into_iter().filter(|other| page_name(other) != page_name(command));
    let names: Vec<String> =
        others.map(|other| format!(".BR {} ({SECTION})", escaped(page_name(other)))).collect();
    writeln!(page, "{}", names.join(" ,\n"))
}

/// Escapes a line of text for roff: backslashes, hyphens, and a first character that would make it a request.
fn escaped(line: &str) -> String {
    let text = line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq").replace('`', "\\(ga");
    if text.starts_with('.') { format!("\\&{text}") } else { text }
}

const SECTION: &str = "1";

/// The longest line of text, in bytes, to which mandoc(1) does not object.
const LONGEST_LINE: usize = 80;

/// Date of the last change of the manual's texts.
const DATE: &str = "2026-11-28";

const ENVIRONMENT: &str = "\
APIVIDEO_API_KEY\tThe API key.
RINGLIFT_UPLOAD_TOKEN\tThe upload token, which replaces the API key.
RINGLIFT_CONFIG, RINGLIFT_PROFILE\tThe config file and the profile in it.
RINGLIFT_FLAG\tDefault of any other flag, in capital letters and with underscores: RINGLIFT_CHUNK_SIZE for --chunk-size. \
Flags without a value take true or false. An empty variable counts as unset.
XDG_CONFIG_HOME, XDG_STATE_HOME, HOME\tThe directories of the config file and of the journal.
NO_COLOR\tWrites the help without colours.";

const FILES: &str = "\
$XDG_CONFIG_HOME/ringlift/config.toml\tThe config file; in ~/.config if the variable is unset.
$XDG_STATE_HOME/ringlift/journal.db\tThe journal of the uploads; in ~/.local/state if the variable is unset.
$XDG_STATE_HOME/ringlift/jobs.db\tThe queue of `ringlift ingest`, in the same folder.";

const EXIT_STATUS: &str = "\
0\tSuccess.
1\tA permanent failure.
2\tA usage error.
3\tThe service has no such video or upload token.
4\tThere is no such file on this machine.
5\tA temporary failure: the same command may succeed later.
6\tThe file or the video is in an unexpected state.
7\tThe request is not permitted.
8\tThe limit of bytes ended the run.
10\tThe limit of time ended the run.
129, 130, 143\tEnded by SIGHUP, SIGINT or SIGTERM.";

#[cfg(test)]
mod tests {
    use std::process::{Command as Process, Stdio};

    use super::*;

    fn pages() -> Vec<(String, String)> {
        let root = tree();
        let text = |command: &Command| String::from_utf8(page(command, &root).unwrap()).unwrap();
        all(&root).into_iter().map(|command| (page_name(command).to_owned(), text(command))).collect()
    }

    fn upload() -> String {
        pages().into_iter().find(|(name, _)| name == "ringlift-upload").unwrap().1
    }

    #[test]
    fn every_page_has_the_usual_sections_in_the_usual_order() {
        for (name, page) in pages() {
            let mut rest = page.as_str();
            for section in
                ["NAME", "SYNOPSIS", "DESCRIPTION", "ENVIRONMENT", "FILES", "\"EXIT STATUS\"", "\"SEE ALSO\""]
            {
                let heading = [format!(".SH {section}\n"), format!(".SH {}\n", section.trim_matches('"'))];
                let found = heading.iter().find_map(|heading| rest.split_once(heading.as_str()));
                rest = found.unwrap_or_else(|| panic!("{name}: no {section} at its place")).1;
            }
            assert!(!page.contains(".SH EXTRA"), "{name}");
            assert!(page.contains("User Commands"), "{name}");
            assert!(page.contains(&format!("ringlift {}", env!("CARGO_PKG_VERSION"))), "{name}");
        }
    }

    #[test]
    fn the_synopsis_has_flags_with_values_in_the_order_of_the_help_and_then_the_files() {
        let page = upload();
        let synopsis = page.split(".SH ").find(|section| section.starts_with("SYNOPSIS")).unwrap();
        let mut rest = synopsis;
        for usage in [
            "[\\fB\\-\\-journal\\fR \\fIFILE\\fR]",
            "[\\fB\\-n\\fR | \\fB\\-\\-dry\\-run\\fR]",
            "[\\fB\\-\\-title\\fR \\fITITLE\\fR]",
            "[\\fB\\-\\-checksum\\fR[=\\fIWHEN\\fR]]",
            "[\\fB\\-\\-endpoint\\-url\\fR \\fIURL\\fR]",
            "\\fIFILE\\fR\\|.\\|.\\|.",
        ] {
            rest = rest.split_once(usage).unwrap_or_else(|| panic!("{usage} in {rest}")).1;
        }
    }

    #[test]
    fn examples_are_not_filled() {
        let page = upload();
        let examples = page.split(".SH ").find(|section| section.starts_with("EXAMPLES")).unwrap();
        let lines: Vec<&str> = examples.lines().collect();
        assert_eq!((lines[1], lines[2]), (".nf", "  ringlift upload movie.mp4"));
        assert!(lines.contains(&".fi"));
    }

    #[test]
    fn long_lines_are_broken_between_words_and_outside_quotes() {
        let word = "x".repeat(40);
        assert_eq!(wrapped(&format!("{word} {word} .b\n")), format!("{word}\n{word} .b\n"));
        assert_eq!(wrapped(&format!("{word} {word}x .b\n")), format!("{word}\n{word}x .b\n"));
        let [first, second] = [40, 79].map(|len| "x".repeat(len));
        assert_eq!(wrapped(&format!("{first} {second} .b")), format!("{first}\n{second}\n\\&.b\n"));
        let example = format!(".nf\n{word} {word}\n.fi\n");
        assert_eq!(wrapped(&example), example);
        let (mut page, word) = (Vec::new(), "x".repeat(30));
        super::example(&format!("  tool '{word} {word}' --next x"), &mut page).unwrap();
        let quoted = format!("  tool \\(aq{word} {word}\\(aq \\e\n      \\-\\-next x\n");
        assert_eq!(String::from_utf8(page).unwrap(), quoted);
    }

    #[test]
    fn text_is_not_taken_for_requests() {
        assert_eq!(escaped(".TH x"), "\\&.TH x");
        assert_eq!(escaped("'a' \\n -b"), "\\(aqa\\(aq \\en \\-b");
    }

    #[test]
    fn mandoc_has_no_complaint() {
        let linted = |page: &str| {
            let mut mandoc = Process::new("mandoc")
                .arg("-Tlint")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .ok()?;
            mandoc.stdin.take()?.write_all(page.as_bytes()).ok()?;
            Some(String::from_utf8_lossy(&mandoc.wait_with_output().ok()?.stdout).into_owned())
        };
        for (name, page) in pages() {
            // Not installed everywhere: the other tests hold the structure.
            let Some(complaints) = linted(&page) else { return };
            assert_eq!(complaints, "", "{name}");
        }
    }
}
