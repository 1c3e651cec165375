//! `ringlift completion`: prints the completion script of a shell.

use clap::CommandFactory;

use super::Ended;
use super::args::{Cli, CompletionArgs};
use super::screen::Screen;

pub(super) fn run(args: &CompletionArgs, screen: &Screen) -> Ended {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ringlift", &mut script);
    screen.text(&script);
    Ok(None)
}
