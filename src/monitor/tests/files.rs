//! The text of metrics, and the file of metrics.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;
use crate::monitor::metrics::{MetricsFormat, filed, scraped};

/// Parses the format of Prometheus strictly: each sample follows the type of its family, and occurs once.
fn samples(text: &str) -> Vec<(String, f64)> {
    let mut family = String::new();
    let mut seen = HashSet::new();
    let mut samples = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split(' ').next().unwrap().to_owned();
        } else if !line.starts_with("# HELP ") {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            assert!(series.starts_with(&family), "{line} is outside of its family {family}");
            assert!(seen.insert(series.to_owned()), "{series} twice");
            samples.push((series.to_owned(), value.parse().unwrap()));
        }
    }
    samples
}

#[test]
fn every_metric_has_its_documented_name() {
    let text = scraped(view_with("secret-name.mov"), MetricsFormat::Prometheus).unwrap();
    let samples = samples(&text);
    let value = |series: &str| samples.iter().find(|(name, _)| name == series).map(|(_, value)| *value);
    for (series, expected) in [
        ("ringlift_jobs{state=\"queued\"}", 6.0),
        // One of the ten has failed before its first byte.
        ("ringlift_job_bytes_total", 10_000.0),
        ("ringlift_bytes_read_total", 1600.0),
        ("ringlift_bytes_retransmitted_total", 7.0),
        ("ringlift_requests_total{class=\"uploads\",outcome=\"ok\"}", 12.0),
        ("ringlift_requests_total{class=\"reads\",outcome=\"throttled\"}", 3.0),
        ("ringlift_retries_total", 4.0),
        ("ringlift_throttled_seconds_total{class=\"uploads\"}", 1.5),
        ("ringlift_rate_limit{class=\"uploads\"}", 100.0),
        ("ringlift_rate_limit_remaining{class=\"uploads\"}", 34.0),
        ("ringlift_lanes{state=\"busy\"}", 4.0),
        ("ringlift_bandwidth_limit_bytes", f64::from(1 << 30)),
        ("ringlift_buffer_bytes", 0.0),
        ("ringlift_journal_errors_total", 0.0),
        ("ringlift_last_success_timestamp_seconds", 1_800_000_000.0),
        ("ringlift_chunk_duration_seconds_bucket{le=\"0.5\"}", 1.0),
        ("ringlift_chunk_duration_seconds_count", 2.0),
    ] {
        assert_eq!(value(series), Some(expected), "{series} in {text}");
    }
    for series in ["ringlift_eta_seconds", "process_resident_memory_bytes"] {
        assert!(value(series).is_some(), "{series}");
    }
    // A budget that is not known has no sample, and neither has the exit code of a run that continues.
    assert_eq!(
        (value("ringlift_rate_limit{class=\"reads\"}"), value("ringlift_run_exit_code")),
        (None, None)
    );
    assert!(!text.contains("secret-name"), "no label has a file name");
    let text = filed(view_with("a")).unwrap();
    assert!(!text.contains("process_"), "the exporter has such metrics of its own");
}

#[test]
fn open_metrics_are_for_clients_that_accept_them() {
    let accepted = |accept: &str| MetricsFormat::accepted(accept);
    let prometheus =
        "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
    assert_eq!(accepted(prometheus), MetricsFormat::OpenMetrics);
    for accept in ["", "*/*", "text/plain", "application/openmetrics-text;q=0"] {
        assert_eq!(accepted(accept), MetricsFormat::Prometheus, "{accept}");
    }
    let text = scraped(view_with("a"), MetricsFormat::OpenMetrics).unwrap();
    assert!(text.ends_with("# EOF\n") && text.contains("# TYPE ringlift_bytes_sent counter\n"), "{text}");
    assert!(text.contains("\nringlift_bytes_sent_total 1500"), "{text}");
}

#[test]
fn the_last_bucket_of_a_histogram_holds_every_chunk_in_both_formats() {
    for format in [MetricsFormat::Prometheus, MetricsFormat::OpenMetrics] {
        let mut view = view_with("a");
        view.chunk_times.record(Duration::from_secs(3600));
        let count = view.chunk_times.count();
        let text = scraped(view, format).unwrap();
        let last = format!("ringlift_chunk_duration_seconds_bucket{{le=\"+Inf\"}} {count}\n");
        assert_eq!(text.matches(&last).count(), 1, "{text}");
    }
}

#[test]
fn promtool_accepts_the_metrics() {
    let mut view = view_with("a");
    view.exit_code = Some(0);
    let text = scraped(view, MetricsFormat::Prometheus).unwrap();
    let promtool = Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).spawn();
    let mut promtool = match promtool {
        Ok(promtool) => promtool,
        Err(error) => {
            let is_required = std::env::var_os("RINGLIFT_REQUIRE_PROMTOOL").is_some_and(|value| value == "1");
            assert!(!is_required, "promtool: {error}");
            eprintln!("skipped: promtool (Debian package prometheus): {error}");
            return;
        }
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(promtool.wait().unwrap().success(), "{text}");
}

fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_is_replaced_as_a_whole_and_once_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ringlift.prom");
    // Left by a run that was killed.
    fs::write(folder.path().join("ringlift.prom.tmp"), "ringlift_half").unwrap();
    let mut file = MetricsFile::new(&path).unwrap();
    assert!(!path.exists(), "nothing is shown before the first metrics");
    let now = Instant::now();
    assert!(file.update(|| view_with("a"), now).unwrap());
    let opened = fs::File::open(&path).unwrap();
    assert!(!file.update(|| panic!("not due"), now + Duration::from_millis(900)).unwrap());
    assert!(file.update(|| view_with("a"), now + Duration::from_secs(1)).unwrap());
    let mut ended = view_with("a");
    ended.exit_code = Some(5);
    file.write(ended).unwrap();
    assert!(fs::read_to_string(&path).unwrap().contains("\nringlift_run_exit_code 5"));
    // A reader that opened the old file reads all of it.
    let old = std::io::read_to_string(opened).unwrap();
    assert!(!old.contains("exit_code") && !samples(&old).is_empty());
    assert_eq!(entries(folder.path()), ["ringlift.prom"]);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o444, 0o444, "the exporter is another user");
}

#[test]
fn links_folders_and_missing_folders_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    fs::write(&target, "kept").unwrap();
    symlink(&target, folder.path().join("link")).unwrap();
    let error = |name: &str| MetricsFile::new(folder.path().join(name)).unwrap_err();
    assert!(matches!(error("link"), MetricsFileError::SymbolicLink { .. }));
    assert!(matches!(error("missing/a.prom"), MetricsFileError::NoFolder { .. }));
    assert!(matches!(error("target/a.prom"), MetricsFileError::NoFolder { .. }));
    assert!(matches!(MetricsFile::new(folder.path()).unwrap_err(), MetricsFileError::NotAFile { .. }));
    assert!(matches!(MetricsFile::new("/dev/null").unwrap_err(), MetricsFileError::NotAFile { .. }));
    // A link in the place of the temporary file would overwrite its target.
    symlink(&target, folder.path().join("a.prom.tmp")).unwrap();
    assert!(MetricsFile::new(folder.path().join("a.prom")).is_err());
    assert_eq!(fs::read_to_string(target).unwrap(), "kept");
}

#[test]
fn a_file_system_that_is_read_only_is_named() {
    let error = MetricsFile::new("/proc/ringlift.prom").unwrap_err();
    assert!(
        !matches!(error, MetricsFileError::InUse { .. }) && error.to_string().contains("/proc/ringlift.prom")
    );
    let read_only = std::io::Error::from_raw_os_error(libc::EROFS);
    let error = MetricsFileError::io("/srv/a.prom".into(), read_only);
    assert!(matches!(error, MetricsFileError::NotWritable { .. }), "{error}");
}

#[test]
fn two_writers_never_mix() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.prom");
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || {
                let mut file = loop {
                    match MetricsFile::new(&path) {
                        Ok(file) => break file,
                        Err(error) => assert!(matches!(error, MetricsFileError::InUse { .. }), "{error}"),
                    }
                };
                for _ in 0..50 {
                    match file.write(view_with("a")) {
                        Ok(()) | Err(MetricsFileError::InUse { .. }) => {}
                        // Another writer may have checked the folder meanwhile, and removed its file.
                        Err(MetricsFileError::NoFolder { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                    if let Ok(text) = fs::read_to_string(file.path()) {
                        assert!(
                            text.ends_with("ringlift_chunk_duration_seconds_count 2\n"),
                            "half a file: {text}"
                        );
                    }
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
}
