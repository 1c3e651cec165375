//! The processor time of a worker on NATS beside that of ingestion with SQLite, on the same files, in pairs.

use std::fs;
use std::path::Path;

use ringlift_baseline::Scheme;

use super::lab::{FleetLab, POOL};
use crate::Result;
use crate::child::{self, Sampling};
use crate::ingest::row;

/// Files of one length, and the scheme of the service.
struct Load {
    len: u64,
    count: usize,
    scheme: Scheme,
}

const LOADS: [Load; 3] = [
    Load { len: 64 << 10, count: 1000, scheme: Scheme::Http },
    Load { len: 50 << 20, count: 20, scheme: Scheme::Http },
    Load { len: 50 << 20, count: 20, scheme: Scheme::Https },
];
const QUICK_LOADS: [Load; 1] = [Load { len: 64 << 10, count: 100, scheme: Scheme::Http }];

pub(super) fn measure(lab: &FleetLab, is_quick: bool) -> Result<bool> {
    let pairs = if is_quick { 1 } else { 5 };
    let loads: &[Load] = if is_quick { &QUICK_LOADS } else { &LOADS };
    let mut are_met = true;
    for &Load { len, count, scheme } in loads {
        let files = lab.files.random_set(len, count)?;
        let films = files[0].parent().ok_or("a file without a folder")?;
        for file in &files {
            crate::files::fill_page_cache(file)?;
        }
        let (mut on_nats, mut on_sqlite) = (Vec::new(), Vec::new());
        for pair in 0..pairs {
            // The order alternates: the second run of a pair meets warmer caches.
            for is_nats in [pair % 2 == 0, pair % 2 != 0] {
                let cpu_s =
                    run(lab, films, &format!("cost-{}-{len}-{pair}", scheme.name()), scheme, is_nats)?;
                if is_nats { on_nats.push(cpu_s) } else { on_sqlite.push(cpu_s) }
            }
        }
        let mut ratios: Vec<f64> =
            on_nats.iter().zip(&on_sqlite).map(|(nats, sqlite)| nats / sqlite).collect();
        let name = format!("{}, {count} files of {} KiB", scheme.name(), len >> 10);
        row(&format!("{name}: CPU time of work on NATS"), median(&mut on_nats), "s", None);
        row(&format!("{name}: CPU time of ingest on SQLite"), median(&mut on_sqlite), "s", None);
        are_met &=
            row(&format!("{name}: NATS to SQLite, median of pairs"), median(&mut ratios), "", Some(1.1));
    }
    Ok(are_met)
}

/// Uploads the files once, to an empty service. Returns the processor time of the worker.
fn run(lab: &FleetLab, films: &Path, name: &str, scheme: Scheme, is_nats: bool) -> Result<f64> {
    let kind = if is_nats { "nats" } else { "sqlite" };
    // The workers of a fleet keep to the limits that a service states, even if it does not enforce them. A service for each
    // run: this one looks at each of its videos for a search by mark, and a worker's waits would grow from run to run.
    let stored = format!("service-{name}-{kind}");
    let service = lab.service(&stored, 1_000_000, scheme)?;
    let host = lab.host(&format!("{name}-{kind}"), service.url(), service.api_key())?.trusting(&service);
    let films = films.to_str().ok_or("a path that is not text")?;
    let command = if is_nats {
        host.submit(name, "60s", &[films])?;
        host.on_nats(&["work", "--drain", "--pool", POOL], name)
    } else {
        host.on_sqlite(&["ingest", films])
    };
    let cpu_s = child::run(command, Sampling::Seldom)?.cpu_s();
    drop(service);
    // The files of all runs would fill a small disk.
    fs::remove_dir_all(lab.files.path(&stored))?;
    Ok(cpu_s)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
