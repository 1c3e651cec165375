//! Flags of the commands that list pages.

use clap::Args;

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct PageArgs {
    /// Show page N
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) page: u32,
    /// Set the number of entries per page
    #[arg(long, value_name = "N", default_value = "25", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(super) page_size: u32,
}
