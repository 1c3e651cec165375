//! The form of an upload: one file in a field of any name, and an optional `videoId`.

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap};

use super::file_store::{ChunkWriter, FileStore};
use super::multipart::{self, MultipartError, MultipartEvent, MultipartParser, PartHead};
use super::request_body::{RequestBody, invalid_payload};
use super::response::HandlerError;
use super::rules::UploadRefusal;
use super::stats::StatsCollector;
use crate::wire::limits::MAX_CHUNK_BYTES;

/// A received form.
pub(super) struct UploadForm {
    pub(super) file: Result<UploadedFile, UploadRefusal>,
    pub(super) video_id: Option<String>,
}

/// A completely received file that is not yet part of a video.
pub(super) struct UploadedFile {
    pub(super) writer: ChunkWriter,
    pub(super) file_name: String,
}

/// Reads a form to its end.
pub(super) async fn receive(
    body: &mut RequestBody,
    headers: &HeaderMap,
    files: &FileStore,
    stats: &StatsCollector,
) -> Result<UploadForm, HandlerError> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let Some(boundary) = content_type.and_then(multipart::boundary) else {
        return Ok(UploadForm { file: Err(UploadRefusal::NoFile), video_id: None });
    };
    let mut parser = MultipartParser::new(&boundary);
    let mut reader =
        FormReader { files, stats, file: Ok(None), video_id: None, current: CurrentField::Ignored };
    while let Some(frame) = body.next().await? {
        parser.push(frame);
        while let Some(event) = parser.next()? {
            if event == MultipartEvent::End {
                return reader.finish(body).await;
            }
            reader.handle(event).await?;
        }
    }
    Err(invalid_payload("The multipart body ends before its closing boundary.".to_owned()).into())
}

impl From<MultipartError> for HandlerError {
    fn from(error: MultipartError) -> HandlerError {
        invalid_payload(error.to_string()).into()
    }
}

struct FormReader<'a> {
    files: &'a FileStore,
    stats: &'a StatsCollector,
    file: Result<Option<UploadedFile>, UploadRefusal>,
    video_id: Option<String>,
    current: CurrentField,
}

/// The field that the arriving data belongs to.
enum CurrentField {
    File,
    VideoId(Vec<u8>),
    Ignored,
}

impl FormReader<'_> {
    async fn handle(&mut self, event: MultipartEvent) -> Result<(), HandlerError> {
        match event {
            MultipartEvent::Part(head) => self.begin_part(head),
            MultipartEvent::Data(data) => self.add_data(data).await?,
            MultipartEvent::PartEnd => {
                if let CurrentField::VideoId(text) =
                    std::mem::replace(&mut self.current, CurrentField::Ignored)
                {
                    let text = String::from_utf8_lossy(&text).trim().to_owned();
                    // A form sends a field that was left empty, too.
                    self.video_id = Some(text).filter(|text| !text.is_empty());
                }
            }
            MultipartEvent::End => {}
        }
        Ok(())
    }

    async fn add_data(&mut self, data: Bytes) -> Result<(), HandlerError> {
        match (&mut self.current, &mut self.file) {
            (CurrentField::File, file) => {
                self.stats.file_bytes(data.len());
                // The bytes of a second file are read and dropped.
                if let Ok(Some(uploaded)) = file {
                    uploaded.writer.push(data).await?;
                }
            }
            (CurrentField::VideoId(text), _) if text.len() + data.len() <= MAX_TEXT_BYTES => {
                text.extend_from_slice(&data);
            }
            (CurrentField::VideoId(_), _) => {
                let detail = format!("The field videoId has more than {MAX_TEXT_BYTES} bytes.");
                return Err(invalid_payload(detail).into());
            }
            (CurrentField::Ignored, _) => {}
        }
        Ok(())
    }

    fn begin_part(&mut self, head: PartHead) {
        self.current = match (head.file_name, head.name.as_deref()) {
            (Some(file_name), _) => {
                self.file = match self.file {
                    Ok(None) => {
                        Ok(Some(UploadedFile { writer: self.files.writer(MAX_CHUNK_BYTES), file_name }))
                    }
                    _ => Err(UploadRefusal::MultipleFiles),
                };
                CurrentField::File
            }
            (None, Some("videoId")) => CurrentField::VideoId(Vec::new()),
            (None, _) => CurrentField::Ignored,
        };
    }

    async fn finish(self, body: &mut RequestBody) -> Result<UploadForm, HandlerError> {
        let file = match self.file {
            Ok(Some(mut uploaded)) => {
                uploaded.writer.finish().await?;
                Ok(uploaded)
            }
            Ok(None) => Err(UploadRefusal::NoFile),
            Err(refusal) => Err(refusal),
        };
        // RFC 2046, section 5.1.1: an epilogue may follow the closing boundary.
        body.drain().await?;
        Ok(UploadForm { file, video_id: self.video_id })
    }
}

/// The largest size of the `videoId` field.
const MAX_TEXT_BYTES: usize = 256;
