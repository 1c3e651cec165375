//! A fleet whose queue is in NATS: the shared budget, many jobs, the time of a take-over, and the cost beside SQLite.
//!
//! Needs `nats-server`, by `NATS_SERVER` or in `PATH`, and a ringlift with the feature `fleet`.

mod budget;
mod cost;
mod jobs;
mod lab;
// The library's tests use the rest of it.
#[allow(dead_code)]
#[path = "../src/fleet/nats_server.rs"]
mod nats_server;
mod take_over;

use std::path::Path;
use std::process::ExitCode;

use clap::ValueEnum;

use crate::Result;
use lab::FleetLab;

/// A measurement of a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FleetMeasurement {
    /// The use of the service's limit by four workers
    Budget,
    /// The memory and the time of many jobs
    Jobs,
    /// The time until another worker goes on with the file of a killed one
    TakeOver,
    /// The processor time beside a queue in SQLite
    Cost,
}

/// Prints the measurements and their bars. Returns failure if a bar is missed.
pub(crate) fn measure(
    dir: &Path,
    ringlift: &Path,
    only: Option<FleetMeasurement>,
    is_quick: bool,
) -> Result<ExitCode> {
    let lab = FleetLab::open(dir, ringlift)?;
    let mut are_met = true;
    for &measurement in FleetMeasurement::value_variants() {
        if only.is_some_and(|only| only != measurement) {
            continue;
        }
        are_met &= match measurement {
            FleetMeasurement::Budget => budget::measure(&lab, is_quick)?,
            FleetMeasurement::Jobs => jobs::measure(&lab, is_quick)?,
            FleetMeasurement::TakeOver => take_over::measure(&lab, is_quick)?,
            FleetMeasurement::Cost => cost::measure(&lab, is_quick)?,
        };
    }
    Ok(if are_met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
