//! `ringlift man`: prints the manual page, or writes the pages of all commands.

use std::fs;
use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_mangen::Man;

use super::args::{Cli, ManArgs};
use super::console::Console;
use super::events::CommandResult;
use super::exit::CommandError;

pub(super) fn run(args: &ManArgs, console: &Console) -> CommandResult {
    match &args.dir {
        Some(dir) => {
            write_all(dir).map_err(|error| CommandError::io(format!("write to {}", dir.display()), error))?
        }
        None => console.text(&page().map_err(|error| CommandError::io("write the manual page", error))?),
    }
    Ok(None)
}

fn page() -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(Cli::command()).render(&mut page)?;
    Ok(page)
}

fn write_all(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    clap_mangen::generate_to(Cli::command(), dir)
}
