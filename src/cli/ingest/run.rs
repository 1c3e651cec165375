//! The loop of a run: events, signals, the display.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt};
use ringlift::UsageMeter;
use ringlift::bulk::event::millis;
use ringlift::bulk::{
    CANCEL_TIMEOUT, IngestEvent, JobCount, JobStateName, JobStore, JsonEvent, OwnerId, Pool, Presence,
    Shutdown, ShutdownStage,
};
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until, timeout};

use super::daemon::Daemon;
use super::ending::LoopEnd;
use super::view::IngestView;
use crate::cli::console::Console;
use crate::cli::exit::Interrupt;
use crate::cli::ingest_args::RunArgs;
use crate::cli::lane_watch::LaneWatch;
use crate::cli::signals::Interrupts;

/// The parts of the loop of a run.
pub(in crate::cli) struct RunLoop<'a> {
    pub(in crate::cli) args: &'a RunArgs,
    pub(in crate::cli) settings: &'a ringlift::Settings,
    pub(in crate::cli) store: Arc<dyn JobStore>,
    pub(in crate::cli) pool: Pool,
    /// The identity of this worker, if the queue is shared and the run is watched by a monitor or a file of metrics.
    pub(in crate::cli) watched_as: Option<OwnerId>,
    pub(in crate::cli) client: ringlift::Client,
    pub(in crate::cli) console: &'a Console,
}

impl RunLoop<'_> {
    /// Shows the events until the run ends, or is abandoned after a signal.
    pub(in crate::cli) async fn follow(
        &self,
        events: impl Stream<Item = IngestEvent>,
        mut shutdown: Shutdown,
        mut interrupts: Interrupts,
        view: &mut IngestView,
        mut daemon: Option<Daemon>,
    ) -> LoopEnd {
        let console = self.console;
        daemon.iter().for_each(Daemon::ready);
        let (mut events, mut interrupt) = (Box::pin(events), None);
        // Before the first claim, which takes jobs from the queue.
        self.count(view).await;
        let mut counting = Box::pin(self.queued_after(BETWEEN_COUNTS));
        let mut presence = Box::pin(self.present_after(Duration::ZERO));
        let (mut meter, mut lanes) = (UsageMeter::default(), LaneWatch::new(self.settings, &self.client));
        let mut ticks = interval(TICK);
        // After a pause of the machine the missed ticks would come at once.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        console.start_progress();
        let end = loop {
            tokio::select! {
                // Without room in the output queue the events wait in the library's queue.
                event = events.next(), if interrupt.is_some() || console.output().has_room() => match event {
                    Some(IngestEvent::Ended(reason)) => break Some(reason),
                    Some(event) => {
                        daemon.iter_mut().for_each(|daemon| daemon.record(&event));
                        view.event(event, console);
                    }
                    None => break None,
                },
                received = interrupts.next() => {
                    self.interrupted(received, interrupt.is_some(), &mut shutdown, daemon.as_ref());
                    // The first signal decides the exit code.
                    interrupt.get_or_insert(received);
                }
                queued = &mut counting => {
                    queued.into_iter().for_each(|(jobs, bytes)| view.queue(jobs, bytes, console));
                    counting = Box::pin(self.queued_after(BETWEEN_COUNTS));
                }
                (owner, present) = &mut presence => {
                    present.iter().for_each(|present| view.present(present, &owner));
                    presence = Box::pin(self.present_after(BETWEEN_PRESENCES));
                }
                _ = ticks.tick() => self.tick(&mut meter, &mut lanes, view, daemon.as_mut()),
                () = until(shutdown.deadline()) => {
                    if shutdown.advance(Instant::now()) == ShutdownStage::Abandoned {
                        break None;
                    }
                }
            }
        };
        // Cancels the uploads of a run that is abandoned.
        drop(events);
        // The last regular count may be older than the last jobs.
        self.count(view).await;
        view.conclude(console);
        console.clear_progress();
        LoopEnd { end, interrupt, usage: meter.usage() }
    }

    /// Counts the queue once.
    async fn count(&self, view: &mut IngestView) {
        let counting = self.queued_after(Duration::ZERO);
        if let Ok(Some((jobs, bytes))) = timeout(LONGEST_COUNT, counting).await {
            view.queue(jobs, bytes, self.console);
        }
    }

    /// Returns the jobs of the pool that are queued and their bytes, after a delay; `None` if the store failed. The
    /// run itself reports a store that keeps failing.
    async fn queued_after(&self, delay: Duration) -> Option<(u64, u64)> {
        sleep(delay).await;
        let counts = self.store.count().await.ok()?;
        let is_queued = |count: &&JobCount| count.pool == self.pool && count.state == JobStateName::Queued;
        Some(counts.iter().find(is_queued).map_or((0, 0), |count| (count.jobs, count.bytes)))
    }

    /// Returns the workers that are present and the identity of this one, after a delay; no workers if the store failed.
    /// Never returns if no monitor shows them.
    async fn present_after(&self, delay: Duration) -> (OwnerId, Option<Presence>) {
        let Some(owner) = &self.watched_as else { return std::future::pending().await };
        sleep(delay).await;
        (owner.clone(), self.store.present().await.ok())
    }

    /// Does the regular work between events: samples, the timetable of the bandwidth, the display, the daemon.
    fn tick(
        &self,
        meter: &mut UsageMeter,
        lanes: &mut LaneWatch,
        view: &mut IngestView,
        daemon: Option<&mut Daemon>,
    ) {
        meter.sample();
        if let Some(timetable) = &self.args.lanes.bwlimit {
            timetable.apply(&self.settings.bandwidth);
        }
        view.show(self.console);
        lanes.show(&self.client, self.console);
        if let Some(daemon) = daemon {
            daemon.tick(view, &self.client.snapshot(), self.console);
        }
    }

    /// Stops the run within the grace period at the first signal, and at once at a further one.
    fn interrupted(
        &self,
        received: Interrupt,
        is_repeated: bool,
        shutdown: &mut Shutdown,
        daemon: Option<&Daemon>,
    ) {
        // First: the message below may meet a full queue whose reader has stopped.
        self.console.output().hurry();
        if is_repeated {
            shutdown.cancel(Instant::now());
            return;
        }
        if let Some(daemon) = daemon {
            daemon.stopping();
        }
        shutdown.stop(self.args.grace, Instant::now());
        self.announce(received);
    }

    fn announce(&self, received: Interrupt) {
        let (signal, grace_ms) = (received.name(), millis(self.args.grace));
        self.console.emit(&JsonEvent::Stopping { signal, grace_ms });
        self.console.note(format_args!(
            "{signal}: finishing the active chunks, for at most {}; send it again to stop immediately",
            humantime::format_duration(self.args.grace),
        ));
    }
}

/// Waits until the time; forever without one.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

const TICK: Duration = Duration::from_millis(100);

/// One small read of the store: other processes submit and take jobs, too.
const BETWEEN_COUNTS: Duration = Duration::from_secs(1);

/// A third of the time between two heartbeats of a worker. Each look costs a read of the store for each worker.
const BETWEEN_PRESENCES: Duration = Duration::from_secs(5);

/// A store that does not answer must not keep the end of a run.
const LONGEST_COUNT: Duration = Duration::from_secs(2);

/// Longest time that the process continues after the grace period: the cancellation, and writes of the store.
pub(in crate::cli) const AFTER_GRACE: Duration = CANCEL_TIMEOUT.saturating_add(Duration::from_secs(20));
