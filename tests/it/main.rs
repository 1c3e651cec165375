//! Integration tests with real files, real sockets, the local server and the built command.

#![allow(unreachable_pub)] // The modules of this one binary share items without exporting them.

mod batch;
mod budget;
mod checkpoints;
mod command;
mod config_files;
mod endpoint;
mod environment;
mod events;
mod every_refusal;
mod faults;
#[cfg(all(feature = "cli", feature = "fleet"))]
mod fleet;
#[cfg(all(feature = "cli", feature = "fleet"))]
mod fleet_cluster;
#[cfg(all(feature = "cli", feature = "fleet"))]
mod fleet_hosts;
#[cfg(all(feature = "cli", feature = "fleet"))]
mod fleet_login;
#[cfg(all(feature = "cli", feature = "fleet"))]
mod fleet_mounts;
#[cfg(all(feature = "cli", feature = "fleet"))]
mod fleet_orphans;
#[cfg(all(feature = "cli", feature = "fleet"))]
mod fleet_outages;
#[cfg(all(feature = "cli", feature = "fleet"))]
mod fleet_presence;
mod ingest;
mod ingest_clock;
mod ingest_ends;
mod ingest_files;
mod ingest_manifests;
mod ingest_urls;
mod jobs;
mod journal_places;
mod lanes;
mod limits;
mod machine;
mod many_files;
mod monitor_run;
mod odd_answers;
mod on_change;
mod on_terminal;
mod outputs;
mod progress_display;
mod proxy;
mod refusals;
mod resume;
mod resume_command;
mod round_trip;
mod runner;
#[cfg(feature = "cli")]
mod secrets;
mod shared_video;
mod silent_sources;
mod snapshot;
mod soak;
mod streams;
mod support;
mod touched;
mod truth;
#[cfg(feature = "cli")]
mod tune;
mod video_command;
#[cfg(feature = "cli")]
mod watch;
mod work;
