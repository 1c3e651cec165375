//! The public face: a client, uploads that are described and sent, and handles to those under way.

mod api_calls;
mod builder;
mod checkpoints;
mod client;
mod confirm;
mod events;
mod fetch;
mod leftover;
mod progress;
mod resumption;
mod running;

pub use crate::engine::backlog::Backlog;
pub use crate::engine::checkpoint::Checkpoint;
pub use crate::engine::creation::MARK_KEY;
pub use crate::engine::options::{Checksum, ChunkSize, Mode, OnChange, UnknownValue, UploadOptions};
pub use crate::engine::progress::Progress;
#[allow(unused_imports)] // Bulk runs use it, which a build may leave out.
pub(crate) use crate::engine::request::ContainerGate;
pub use crate::engine::request::Uploaded;
pub use crate::engine::settings::{LaneControl, PRODUCTION_URL, SANDBOX_URL, Settings};
pub use crate::engine::size::{NotASize, Size};
pub use crate::engine::snapshot::{
    Budget, ByClass, ByteCounts, LaneCounts, RequestCounts, Snapshot, UploadCounts,
};
pub use crate::engine::validate::{LONGEST_TIME, MOST_LANES};
pub use builder::Upload;
pub use checkpoints::Checkpoints;
pub use client::{Client, ClientBuilder};
pub use events::Events;
pub use fetch::FetchedState;
pub use leftover::LeftoverState;
pub use progress::ProgressStream;
pub use resumption::SkipReason;
pub use running::{Receipt, Running, Stopper};

#[cfg(test)]
mod tests {
    use super::*;

    fn is_shared_between_threads<T: Send + Sync + 'static>() {}
    fn is_sent_to_a_thread<T: Send + 'static>(_: T) {}

    #[test]
    fn every_handle_crosses_threads() {
        is_shared_between_threads::<Client>();
        is_shared_between_threads::<ClientBuilder>();
        is_shared_between_threads::<Settings>();
        is_shared_between_threads::<UploadOptions>();
        is_shared_between_threads::<Running>();
        is_shared_between_threads::<Receipt>();
        is_shared_between_threads::<Stopper>();
        is_shared_between_threads::<Events>();
        is_shared_between_threads::<ProgressStream>();
        is_shared_between_threads::<Checkpoint>();
        is_shared_between_threads::<Checkpoints>();
        is_shared_between_threads::<Progress>();
        is_shared_between_threads::<Uploaded>();
        is_shared_between_threads::<crate::Error>();
    }

    #[test]
    fn every_future_crosses_threads() {
        // Never polled: the bounds are what is tested.
        let client = Client::builder().endpoint_url("http://127.0.0.1:1").build().unwrap();
        is_sent_to_a_thread(client.upload("a"));
        is_sent_to_a_thread(client.upload_bytes("a", Vec::new()).send());
        is_sent_to_a_thread(client.upload_async_read("a", tokio::io::empty()).start());
        is_sent_to_a_thread(client.upload("a").with_receipt());
        let running = pollster::block_on(client.upload_bytes("a", Vec::new()).start()).unwrap();
        is_sent_to_a_thread(running.join());
    }
}
