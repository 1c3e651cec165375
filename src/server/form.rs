//! The form of an upload: one file, whatever its field is called, and perhaps the id of a video.

use hyper::header::{CONTENT_TYPE, HeaderMap};

use super::answer::Failure;
use super::assembly::{Shelves, Spool};
use super::intake::{Intake, invalid_payload};
use super::multipart::{self, Event, MultipartError, Parser, PartHead};
use super::rules::Refusal;
use super::tally::Tallies;
use crate::wire::limits::MAX_CHUNK_BYTES;

/// What was sent.
pub(super) struct Form {
    pub(super) file: Result<Upload, Refusal>,
    pub(super) video_id: Option<String>,
}

/// A file that arrived completely, not yet kept.
pub(super) struct Upload {
    pub(super) spool: Spool,
    pub(super) file_name: String,
}

/// Reads a form to its end.
pub(super) async fn receive(
    intake: &mut Intake,
    headers: &HeaderMap,
    shelves: &Shelves,
    tallies: &Tallies,
) -> Result<Form, Failure> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let Some(boundary) = content_type.and_then(multipart::boundary) else {
        return Ok(Form { file: Err(Refusal::NoFile), video_id: None });
    };
    let mut parser = Parser::new(&boundary);
    let mut parts = Parts { shelves, tallies, file: Ok(None), video_id: None, current: Current::Ignored };
    while let Some(frame) = intake.next().await? {
        parser.push(frame);
        while let Some(event) = parser.next()? {
            if event == Event::End {
                return parts.finish(intake).await;
            }
            parts.take(event).await?;
        }
    }
    Err(invalid_payload("The multipart body ends before its closing boundary.".to_owned()).into())
}

impl From<MultipartError> for Failure {
    fn from(error: MultipartError) -> Failure {
        invalid_payload(error.to_string()).into()
    }
}

struct Parts<'a> {
    shelves: &'a Shelves,
    tallies: &'a Tallies,
    file: Result<Option<Upload>, Refusal>,
    video_id: Option<String>,
    current: Current,
}

/// What the data that arrives belongs to.
enum Current {
    File,
    VideoId(Vec<u8>),
    Ignored,
}

impl Parts<'_> {
    async fn take(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Part(head) => self.begin(head),
            Event::Data(data) => match (&mut self.current, &mut self.file) {
                (Current::File, file) => {
                    self.tallies.file_bytes(data.len());
                    if let Ok(Some(upload)) = file {
                        upload.spool.push(data).await?;
                    }
                }
                (Current::VideoId(text), _) if text.len() + data.len() <= MAX_TEXT_BYTES => {
                    text.extend_from_slice(&data);
                }
                (Current::VideoId(_), _) => {
                    let detail = format!("The field videoId has more than {MAX_TEXT_BYTES} bytes.");
                    return Err(invalid_payload(detail).into());
                }
                (Current::Ignored, _) => {}
            },
            Event::PartEnd => {
                if let Current::VideoId(text) = std::mem::replace(&mut self.current, Current::Ignored) {
                    let text = String::from_utf8_lossy(&text).trim().to_owned();
                    self.video_id = Some(text).filter(|text| !text.is_empty());
                }
            }
            Event::End => {}
        }
        Ok(())
    }

    fn begin(&mut self, head: PartHead) {
        self.current = match (head.file_name, head.name.as_deref()) {
            (Some(file_name), _) => {
                self.file = match self.file {
                    Ok(None) => Ok(Some(Upload { spool: self.shelves.spool(MAX_CHUNK_BYTES), file_name })),
                    _ => Err(Refusal::MultipleFiles),
                };
                Current::File
            }
            (None, Some("videoId")) => Current::VideoId(Vec::new()),
            (None, _) => Current::Ignored,
        };
    }

    async fn finish(self, intake: &mut Intake) -> Result<Form, Failure> {
        let file = match self.file {
            Ok(Some(mut upload)) => {
                upload.spool.finish().await?;
                Ok(upload)
            }
            Ok(None) => Err(Refusal::NoFile),
            Err(refusal) => Err(refusal),
        };
        intake.drain().await?;
        Ok(Form { file, video_id: self.video_id })
    }
}

/// The most bytes of a text field that matters.
const MAX_TEXT_BYTES: usize = 256;
