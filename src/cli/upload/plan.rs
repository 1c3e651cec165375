//! What is to be uploaded, and how it will be cut.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use ringlift::error::OneLine;
use ringlift::source::{Circumstances, Declined, Delivery, SourceFile, probe};
use ringlift::wire::Addressing;
use ringlift::{ChunkSize, Error, Mode, NewVideo, OnChange, Secret, Settings};

use crate::cli::events::{self, ErrorEvent, Event, Planned, Summary};
use crate::cli::exit::{Exit, Failure};
use crate::cli::screen::{Leftover, Screen};
use crate::cli::upload_args::{UploadArgs, WayArgs};
use crate::cli::values::Size;

/// One thing to upload.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Item {
    /// Its place on the command line.
    pub(super) index: usize,
    /// What it is called in events and messages.
    pub(super) name: String,
    pub(super) input: Input,
    /// As far as it is known before it is opened.
    bytes: Option<u64>,
    pub(super) errand: Rc<Errand>,
}

/// Where items go, and how they are cut.
#[derive(Debug)]
pub(in crate::cli) struct Errand {
    /// The video to create; with an empty title, which means the file's name, unless one was given.
    pub(in crate::cli) video: NewVideo,
    /// The video to fill in place of a new one.
    pub(in crate::cli) video_id: Option<String>,
    /// What proves who asks in place of the API key.
    pub(in crate::cli) token: Option<Secret>,
    pub(in crate::cli) mode: Mode,
    pub(in crate::cli) chunk_size: ChunkSize,
    pub(in crate::cli) expected_bytes: Option<u64>,
    pub(in crate::cli) on_change: OnChange,
    pub(in crate::cli) unbegun: Unbegun,
}

/// What becomes of an item of which the journal has nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Unbegun {
    Begin,
    Refuse,
}

/// Where its bytes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Input {
    File(PathBuf),
    Stdin,
}

impl Item {
    /// A file. What cannot be opened has no bytes to wait for; opening it says why.
    pub(in crate::cli) fn file(index: usize, path: &Path, errand: Rc<Errand>) -> Item {
        let metadata = path.metadata().ok().filter(|metadata| metadata.is_file());
        let bytes = metadata.map_or(0, |metadata| metadata.len());
        let name = path.to_string_lossy().into_owned();
        Item { index, name, input: Input::File(path.to_owned()), bytes: Some(bytes), errand }
    }

    fn stream_chunk_bytes(&self, settings: &Settings) -> Result<u64, Error> {
        let Errand { mode, chunk_size, expected_bytes, .. } = *self.errand;
        settings.plan_stream(&self.name, mode, chunk_size, expected_bytes)
    }

    /// `None` where nobody knows.
    pub(super) fn bytes(&self) -> Option<u64> {
        self.bytes
    }
}

/// The items of the command line, if they go together with its flags.
pub(super) fn items(args: &UploadArgs, token: Option<Secret>) -> Result<Vec<Item>, Failure> {
    let stdin = args.files.iter().filter(|file| is_stdin(file)).count();
    if stdin > 1 {
        return Err(Failure::usage("standard input (`-`) can be uploaded only once"));
    }
    if stdin == 0 && (args.way.name.is_some() || args.way.expected_size.is_some()) {
        return Err(Failure::usage(
            "--name and --expected-size are about standard input: name `-` among the files",
        ));
    }
    if args.files.len() > 1 && args.destination.video_id.is_some() {
        return Err(Failure::usage("--video-id names one video, which takes one file"));
    }
    let errand = Rc::new(Errand {
        video: args.description.video(),
        video_id: args.destination.video_id.clone(),
        token,
        mode: args.way.mode.into(),
        chunk_size: args.way.chunk_size,
        expected_bytes: args.way.expected_size.map(|size| size.0),
        on_change: args.way.on_change.into(),
        unbegun: Unbegun::Begin,
    });
    let item = |(index, file)| item(index, file, &args.way, &errand);
    Ok(args.files.iter().map(PathBuf::as_path).enumerate().map(item).collect())
}

fn item(index: usize, file: &Path, way: &WayArgs, errand: &Rc<Errand>) -> Item {
    let errand = errand.clone();
    match is_stdin(file) {
        true => {
            let name = way.name.clone().unwrap_or_else(|| "stdin".to_owned());
            Item { index, name, input: Input::Stdin, bytes: errand.expected_bytes, errand }
        }
        false => Item::file(index, file, errand),
    }
}

fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// Whether standard input can go the way it shall, asked before any other item is sent.
pub(super) fn check_stdin(items: &[Item], settings: &Settings) -> Result<(), Failure> {
    let stdin = items.iter().find(|item| item.input == Input::Stdin);
    stdin.map_or(Ok(0), |item| item.stream_chunk_bytes(settings)).map(drop).map_err(Failure::from)
}

/// Shows what would be sent. Nothing is sent or created.
pub(super) fn show(items: &[Item], settings: &Settings, screen: &Screen) -> Result<Summary, Failure> {
    let ring = probe::ring();
    let mut exits = Vec::new();
    for item in items {
        match planned(item, settings, &ring) {
            Ok(planned) => {
                let planned = Planned { dry_run: true, ..planned };
                screen.event(&Event::Planned(planned.clone()));
                screen.result(describe(&planned));
            }
            Err(failure) => {
                let error = ErrorEvent::new(&failure);
                screen.event(&Event::FileFailed { file: &item.name, elapsed_ms: 0, resumable: false, error });
                screen.file_failure(&item.name, &failure, Leftover::Nothing);
                exits.push(failure.exit());
            }
        }
    }
    let files_failed = exits.len();
    Ok(Summary { exit: Exit::of_all(exits), files_failed, ..Summary::default() })
}

/// How an item will be sent, or why it cannot be. `ring` is what [`probe::ring`] gave.
pub(super) fn planned(
    item: &Item,
    settings: &Settings,
    ring: &Result<(), Declined>,
) -> Result<Planned, Failure> {
    let (mode, chunk_size) = (item.errand.mode, item.errand.chunk_size);
    let mut planned = Planned {
        file: item.name.clone(),
        bytes: item.bytes,
        mode: events::mode(Addressing::Part),
        chunk_bytes: None,
        chunks: None,
        lanes: settings.lanes,
        reader: None,
        endpoint_url: settings.endpoint_url.clone(),
        dry_run: false,
    };
    match &item.input {
        Input::Stdin => planned.chunk_bytes = Some(item.stream_chunk_bytes(settings)?),
        Input::File(path) => {
            let file = SourceFile::open(path).map_err(Error::from)?;
            let plan = settings.plan(file.len(), mode, chunk_size)?;
            planned.bytes = Some(plan.len());
            planned.mode = events::mode(plan.addressing());
            planned.chunk_bytes = Some(plan.chunk_bytes());
            planned.chunks = Some(plan.chunks());
            planned.reader = Some(reader(&file, settings, ring));
        }
    }
    Ok(planned)
}

fn reader(file: &SourceFile, settings: &Settings, ring: &Result<(), Declined>) -> String {
    let delivery = match settings.endpoint_url.starts_with("https:") {
        true => Delivery::Tls,
        false => Delivery::Plain,
    };
    let circumstances = Circumstances { delivery, sigbus: settings.sigbus, ring };
    probe::choose(settings.reader, file, &circumstances).reader.to_string()
}

fn describe(planned: &Planned) -> String {
    let bytes = planned.bytes.map_or("unknown length".to_owned(), |bytes| Size(bytes).to_string());
    let cut = match (planned.chunks, planned.chunk_bytes) {
        (Some(1), _) | (_, None) => String::new(),
        (Some(chunks), Some(chunk_bytes)) => format!(", {chunks} chunks of {}", Size(chunk_bytes)),
        (None, Some(chunk_bytes)) => format!(", chunks of {}", Size(chunk_bytes)),
    };
    let reader = planned.reader.as_ref().map(|reader| format!(", read by {reader}")).unwrap_or_default();
    let Planned { file, mode, lanes, endpoint_url, .. } = planned;
    let file = OneLine(file);
    format!("{file}: {bytes} to {endpoint_url}, mode {mode}{cut}, {lanes} lanes{reader}")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn args(line: &str) -> UploadArgs {
        match Cli::parse_from(line.split_whitespace()).command {
            Command::Upload(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_that_do_not_go_with_the_files_are_refused_before_anything_is_sent() {
        for line in
            ["upload - -", "upload --name x a", "upload --expected-size 1G a", "upload --video-id vi a b"]
        {
            let refused = items(&args(&format!("ringlift {line}")), None).unwrap_err();
            assert_eq!(refused.exit(), Exit::Usage, "{line}");
        }
        assert_eq!(items(&args("ringlift upload --name x --video-id vi -"), None).unwrap()[0].name, "x");
    }

    #[test]
    fn the_plan_says_how_a_file_will_be_cut() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(12 << 20).unwrap();
        let args = args(&format!("ringlift upload --chunk-size 5M {}", file.path().display()));
        let planned = planned(&items(&args, None).unwrap()[0], &Settings::default(), &Ok(())).unwrap();
        assert_eq!((planned.mode, planned.chunks, planned.chunk_bytes), ("bytes", Some(3), Some(5 << 20)));
        assert_eq!(planned.bytes, Some(12 << 20));
    }
}
