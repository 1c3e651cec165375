//! The report as Markdown and as JSON.

use std::fmt::{self, Write as _};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::Result;
use crate::bench_env::Sizes;
use crate::competitors::Competitor;
use crate::machine::Machine;
use crate::plot;
use crate::table::{Bar, Figure, Measured, Summary, Verdict};

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) date: String,
    pub(crate) command: String,
    pub(crate) machine: Machine,
    pub(crate) sizes: Sizes,
    #[serde(rename = "peers")]
    pub(crate) competitors: Vec<Found>,
    pub(crate) rows: Vec<Measured>,
    pub(crate) not_run: Vec<NotRun>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Found {
    #[serde(rename = "peer")]
    pub(crate) competitor: Competitor,
    pub(crate) version: Option<String>,
    pub(crate) missing: Option<String>,
}

/// Rows that could not be run, with the reason.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NotRun {
    pub(crate) rows: Vec<&'static str>,
    pub(crate) reason: String,
}

impl Report {
    /// Writes `<name>.json`, `<name>.md` and `<name>.svg` into `folder`, and returns their paths.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> Result<Vec<PathBuf>> {
        fs::create_dir_all(folder)?;
        let path = |extension: &str| folder.join(format!("{name}.{extension}"));
        fs::write(path("json"), serde_json::to_string_pretty(self)? + "\n")?;
        fs::write(path("md"), self.to_string())?;
        plot::draw(&path("svg"), self)?;
        Ok(["json", "md", "svg"].map(path).into())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_facts(f)?;
        writeln!(f, "| row | work | against | bar | measured | ours | theirs | sink busy | verdict |")?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|")?;
        for row in &self.rows {
            writeln!(f, "{}", line(row))?;
        }
        for missing in &self.not_run {
            writeln!(f, "\nNot run: {}: {}", missing.rows.join(", "), missing.reason)?;
        }
        for row in self.rows.iter().filter(|row| !row.remarks.is_empty()) {
            writeln!(f, "\n{}: {}", row.row.id, row.remarks.join("; "))?;
        }
        Ok(())
    }
}

impl Report {
    fn write_facts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine {
            processor,
            cores,
            kernel,
            file_system,
            commit,
            load,
            memory_gib,
            congestion_control,
            ..
        } = &self.machine;
        let kind = if self.machine.virtual_machine { "virtual machine" } else { "machine" };
        writeln!(f, "{}, commit {commit}, `{}`", self.date, self.command)?;
        writeln!(
            f,
            "\n{cores}-core {kind}, {processor}, {memory_gib:.0} GiB, Linux {kernel}, {file_system}, \
             {congestion_control}, load {load} before the start"
        )?;
        for found in &self.competitors {
            match (&found.version, &found.missing) {
                (Some(version), _) => writeln!(f, "- {}: {version}", found.competitor.name())?,
                (None, reason) => {
                    writeln!(
                        f,
                        "- {}: NOT HERE, {}",
                        found.competitor.name(),
                        reason.as_deref().unwrap_or("unknown")
                    )?;
                }
            }
        }
        writeln!(f)
    }
}

fn line(measured: &Measured) -> String {
    let row = &measured.row;
    let value = digits(&measured.value, if row.figure.is_ratio() { " x" } else { " MiB" });
    let unit = row.figure.unit();
    let (ours, theirs) = match row.figure {
        Figure::MemoryMib | Figure::CacheMib => ("-".to_owned(), "-".to_owned()),
        _ => (format!("{:.3} {unit}", measured.ours.median), format!("{:.3} {unit}", measured.theirs.median)),
    };
    let busy = measured.sink_busy.map_or_else(|| "-".to_owned(), |busy| format!("{:.0} %", 100.0 * busy));
    let verdict = match measured.verdict {
        Verdict::Missed => "**missed**",
        Verdict::Met => "met",
        Verdict::Stretch => "stretch met",
        Verdict::Compared => "-",
    };
    let bars = bars(row.bar, row.stretch);
    let (id, work, against) = (row.id, row.work, row.against);
    format!("| {id} | {work} | {against} | {bars} | {value} | {ours} | {theirs} | {busy} | {verdict} |")
}

fn bars(bar: Bar, stretch: Option<Bar>) -> String {
    let mut text = bar.to_string();
    if let Some(stretch) = stretch {
        // Writing to a string cannot fail.
        let _ = write!(text, " ({stretch})");
    }
    text
}

fn digits(value: &Summary, unit: &str) -> String {
    format!("{:.3}{unit} ({:.3} to {:.3})", value.median, value.min, value.max)
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bar::AtMost(most) => write!(f, "≤ {most}"),
            Bar::AtLeast(least) => write!(f, "≥ {least}"),
            Bar::Within(part) => write!(f, "within {:.0} %", part * 100.0),
            Bar::None => f.write_str("-"),
        }
    }
}
