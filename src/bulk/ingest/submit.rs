//! A submission without a run: the jobs are left to other workers.

use std::sync::Arc;

use futures_core::Stream;
use futures_util::stream;
use tokio::sync::mpsc;

use super::event::{IngestEnd, IngestEvent};
use super::inputs::Inputs;
use super::options::IngestOptions;
use super::report_writer::ReportWriter;
use super::shared::SharedState;
use super::submitter::start;
use crate::bulk::report::Report;
use crate::bulk::store::JobStore;

/// Submits the jobs of `inputs` to `store` and returns the events, the last of which is [`IngestEvent::Ended`].
///
/// Works on no job and sends nothing to the service. A pool of workers, also of other processes, takes the jobs. Dropping
/// the stream ends the submission; the jobs submitted before stay in the store.
pub fn submit(
    inputs: Inputs,
    store: Arc<dyn JobStore>,
    options: IngestOptions,
    report: Option<Report>,
) -> impl Stream<Item = IngestEvent> + use<> {
    let (sender, receiver) = mpsc::channel(QUEUE_LEN);
    let (report, has_watch) = (ReportWriter::start(report), inputs.has_watch());
    let state = Arc::new(SharedState::new(store, options, report, sender, has_watch));
    let watches = inputs.watch_guard();
    start(inputs, state.clone());
    stream::unfold((receiver, SubmitStage::Submitting), move |(mut receiver, stage)| {
        // Watches end when the stream is dropped.
        let _watches = &watches;
        let state = state.clone();
        async move {
            let event = match stage {
                // The shared state has a sender of its own: the channel does not close.
                SubmitStage::Submitting => receiver.recv().await?,
                SubmitStage::Read => {
                    state.finish_report().await;
                    IngestEvent::Ended(state.take_end().unwrap_or(IngestEnd::Submitted))
                }
                SubmitStage::Ended => return None,
            };
            let next = match event {
                IngestEvent::InputsRead { .. } => SubmitStage::Read,
                IngestEvent::Ended(_) => SubmitStage::Ended,
                _ => stage,
            };
            Some((event, (receiver, next)))
        }
    })
}

/// The stage of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SubmitStage {
    Submitting,
    /// The last event of the threads was returned.
    Read,
    Ended,
}

/// The events that wait for the reader of a submission.
const QUEUE_LEN: usize = 64;
