//! `ringlift completion`: prints the completion script of a shell.

use super::args::CompletionArgs;
use super::command_tree;
use super::console::Console;
use super::events::CommandResult;

pub(super) fn run(args: &CompletionArgs, console: &Console) -> CommandResult {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command_tree::documented(), "ringlift", &mut script);
    console.text(&script);
    Ok(None)
}
