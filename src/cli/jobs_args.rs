//! Flags of `ringlift jobs`.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand, ValueEnum};
use ringlift::bulk::JobStateName;

use super::help;
use super::ingest_args::StoreArgs;
use super::upload_args::TokenArgs;

#[derive(Debug, Subcommand)]
pub(super) enum JobsCommand {
    /// List jobs in the order of submission
    #[command(after_long_help = help::JOBS_LIST)]
    List(JobListArgs),
    /// Show jobs
    #[command(after_long_help = help::JOBS_SHOW)]
    Show(JobIdsArgs),
    /// Queue failed, skipped or cancelled jobs again
    #[command(after_long_help = help::JOBS_RETRY)]
    Retry(JobIdsArgs),
    /// Cancel queued and running jobs
    #[command(after_long_help = help::JOBS_CANCEL)]
    Cancel(JobIdsArgs),
    /// Delete jobs, so that their files are uploaded again
    #[command(after_long_help = help::JOBS_FORGET)]
    Forget(JobIdsArgs),
    /// Pause a pool: jobs under way go on, and no other begins
    #[command(after_long_help = help::JOBS_PAUSE)]
    Pause(JobPoolArgs),
    /// Resume a paused pool
    #[command(after_long_help = help::JOBS_PAUSE)]
    Resume(JobPoolArgs),
    /// Write a row for each job that has ended
    #[command(after_long_help = help::JOBS_REPORT)]
    Report(JobReportArgs),
}

#[derive(Debug, Args)]
pub(super) struct JobListArgs {
    #[command(flatten)]
    pub(super) filter: JobFilterArgs,
    /// List N jobs at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) limit: Option<u64>,
    /// List page N of the jobs, counted from 1; a page has as many as --limit says [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) page: Option<u64>,
    #[command(flatten)]
    pub(super) access: StoreAccessArgs,
}

#[derive(Debug, Args)]
pub(super) struct JobReportArgs {
    #[command(flatten)]
    pub(super) filter: JobFilterArgs,
    /// Write to this file, .csv or .jsonl, in place of standard output. An earlier report there is replaced
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    /// Set the format [default: by the name of the file; csv on standard output, jsonl with --json]
    #[arg(long, value_name = "FORMAT")]
    pub(super) format: Option<ReportFormatName>,
    #[command(flatten)]
    pub(super) access: StoreAccessArgs,
}

#[derive(Debug, Args)]
pub(super) struct JobIdsArgs {
    /// The ids of the jobs, or the first six characters or more of an id
    #[arg(required = true, value_name = "ID")]
    pub(super) ids: Vec<String>,
    #[command(flatten)]
    pub(super) access: StoreAccessArgs,
}

#[derive(Debug, Args)]
pub(super) struct JobPoolArgs {
    /// Pause or resume this pool [default: local; with NATS, host:NAME of this host]
    #[arg(long, value_name = "NAME")]
    pub(super) pool: Option<String>,
    #[command(flatten)]
    pub(super) access: StoreAccessArgs,
}

/// The choice of jobs.
#[derive(Debug, Args)]
pub(super) struct JobFilterArgs {
    /// Choose the jobs in this state
    #[arg(long, value_name = "STATE", value_parser = state())]
    pub(super) state: Option<JobStateName>,
    /// Choose the jobs of this pool [default: every pool]
    #[arg(long, value_name = "NAME")]
    pub(super) pool: Option<String>,
}

/// The job store and the account, which the upload token names if there is no API key.
#[derive(Debug, Args)]
pub(super) struct StoreAccessArgs {
    #[command(flatten)]
    pub(super) store: StoreArgs,
    #[command(flatten)]
    pub(super) token: TokenArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ReportFormatName {
    /// A table with a header
    Csv,
    /// A JSON object a line
    Jsonl,
}

fn state() -> impl TypedValueParser<Value = JobStateName> {
    PossibleValuesParser::new(JobStateName::ALL.map(JobStateName::as_str)).try_map(|name| {
        let known = JobStateName::ALL.into_iter().find(|state| state.as_str() == name);
        known.ok_or("there is no such state")
    })
}
