//! The rate of uploads to a server in this process.

use std::path::Path;
use std::time::Instant;

use super::ceiling::{Ceiling, CeilingPart};
use crate::error::{Error, ErrorKind, Result};
use crate::server::{Server, ServerSettings, TlsMode};
use crate::tune::lane_group::create_sparse;
use crate::upload::{ChunkSize, Client, Mode};
use crate::usage::cpu_time;

/// Measures an upload of 128 MiB over plain HTTP and over TLS to a server in this process, which stores it below
/// `work_dir`. The costs include the server's.
///
/// # Errors
/// If the server cannot start, or an upload fails.
pub fn measure_loopback(work_dir: &Path) -> Result<Vec<Ceiling>> {
    [false, true].into_iter().map(|is_tls| measure(work_dir, is_tls)).collect()
}

fn measure(work_dir: &Path, is_tls: bool) -> Result<Ceiling> {
    // Without data: the readers are measured on their own.
    let sample = work_dir.join("loopback.mp4");
    create_sparse(&sample, SAMPLE_BYTES)?;
    let mut settings = ServerSettings::new(work_dir.join(if is_tls { "loopback-tls" } else { "loopback" }));
    settings.tls = if is_tls { TlsMode::OwnAuthority } else { TlsMode::Off };
    let server = Server::start(settings).map_err(|error| {
        Error::new(ErrorKind::Internal, "start a server").because(error.to_string()).with_source(error)
    })?;
    let client = Client::builder().endpoint_url(server.url()).api_key(server.api_key()).lanes(LANES);
    let client = match server.ca_path() {
        Some(path) => client.ca_cert(path).build()?,
        None => client.build()?,
    };
    let upload = client.upload(&sample).mode(Mode::Bytes).chunk_size(ChunkSize::Bytes(CHUNK_BYTES));
    let (cpu, started) = (cpu_time(), Instant::now());
    upload.send_blocking()?;
    let (elapsed, cpu) = (started.elapsed(), cpu_time() - cpu);
    Ok(Ceiling::new(CeilingPart::Loopback { is_tls }, SAMPLE_BYTES, elapsed, cpu))
}

/// Small enough for every temporary folder.
const SAMPLE_BYTES: u64 = 128 << 20;
const CHUNK_BYTES: u64 = 16 << 20;
const LANES: usize = 4;
