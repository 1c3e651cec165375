//! `ringlift status`: shows the ingest and encoding status of a video.

use ringlift::{Encoding, EncodingMetadata, Extent, Ingest, OneLine, Quality, VideoStatus};
use serde::Serialize;

use super::args::{GlobalArgs, StatusArgs};
use super::client;
use super::console::Console;
use super::events::{CommandEvent, CommandResult, Summary};
use super::values::Size;

pub(super) fn run(args: &StatusArgs, global: &GlobalArgs, console: &Console) -> CommandResult {
    let video_id = &args.video_id;
    let client = client::connect(global)?;
    let status = client::block_on(async { Ok(client.video_status(video_id).await?) })?;
    console.emit(&CommandEvent::Status { video_id, status: &status });
    console.result(describe(&status));
    Ok(Some(Summary::of_video(video_id)))
}

fn describe(status: &VideoStatus) -> String {
    let mut lines = Vec::new();
    if let Some(ingest) = &status.ingest {
        describe_ingest(ingest, &mut lines);
    }
    if let Some(encoding) = &status.encoding {
        describe_encoding(encoding, &mut lines);
    }
    lines.join("\n")
}

fn describe_ingest(ingest: &Ingest, lines: &mut Vec<String>) {
    lines.push(format!("ingest     {}", ingest.status.as_ref().map_or("unknown".to_owned(), name)));
    if let Some(bytes) = ingest.filesize {
        lines.push(format!("file size  {bytes} bytes ({})", Size(bytes)));
    }
    if !ingest.received_bytes.is_empty() {
        // The service's numbers may exceed 64 bits together.
        let bytes: u64 = ingest
            .received_bytes
            .iter()
            .filter_map(|range| Extent::inclusive_len(range.from, range.to))
            .fold(0, u64::saturating_add);
        let total = ingest.received_bytes.iter().find_map(|range| range.total);
        let of = total.map(|total| format!(" of {}", Size(total))).unwrap_or_default();
        lines.push(format!("received   {}{of}, in {} ranges", Size(bytes), ingest.received_bytes.len()));
    }
    if let Some(parts) = ingest.received_parts.as_ref().filter(|received| !received.parts.is_empty()) {
        let of = parts.total.map(|total| format!(" of {total}")).unwrap_or_default();
        lines.push(format!("received   {}{of} parts", parts.parts.len()));
    }
}

fn describe_encoding(encoding: &Encoding, lines: &mut Vec<String>) {
    lines.push(format!("playable   {}", if encoding.playable { "yes" } else { "no" }));
    lines.extend(encoding.qualities.iter().map(describe_quality));
    if let Some(metadata) = &encoding.metadata {
        lines.extend(describe_metadata(metadata).map(|text| format!("content    {text}")));
    }
}

fn describe_quality(quality: &Quality) -> String {
    let kind = quality.kind.as_deref().unwrap_or("-");
    let height = quality.quality.as_deref().unwrap_or("-");
    let status = quality.status.as_ref().map_or("unknown".to_owned(), name);
    format!("rendition  {} {}: {status}", OneLine(kind), OneLine(height))
}

fn describe_metadata(metadata: &EncodingMetadata) -> Option<String> {
    let size = metadata.width.zip(metadata.height).map(|(width, height)| format!("{width}x{height}"));
    let duration = metadata.duration.map(|seconds| format!("{seconds} s"));
    let codecs = [&metadata.video_codec, &metadata.audio_codec].into_iter().flatten().cloned();
    let texts: Vec<String> = size.into_iter().chain(duration).chain(codecs).collect();
    (!texts.is_empty()).then(|| OneLine(&texts.join(", ")).to_string())
}

/// Returns the service's name of a value.
fn name(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => OneLine(&name).to_string(),
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn known_fields_are_printed_and_unknown_ones_are_omitted() {
        let status = json!({
            "ingest": {"status": "uploading", "filesize": null,
                       "receivedBytes": [{"from": 0, "to": 1048575, "total": 4194304}]},
            "encoding": {"playable": false, "qualities": [{"type": "hls", "quality": "240p", "status": "brewing"}]},
        });
        let shown = describe(&serde_json::from_value(status).unwrap());
        let expected = [
            "ingest     uploading",
            "received   1 MiB of 4 MiB, in 1 ranges",
            "playable   no",
            "rendition  hls 240p: brewing",
        ];
        assert_eq!(shown, expected.join("\n"));
    }
}
