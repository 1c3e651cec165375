//! `ringlift completion`: prints the completion script of a shell.

use clap::CommandFactory;

use super::args::{Cli, CompletionArgs};
use super::console::Console;
use super::events::CommandResult;

pub(super) fn run(args: &CompletionArgs, console: &Console) -> CommandResult {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ringlift", &mut script);
    console.text(&script);
    Ok(None)
}
