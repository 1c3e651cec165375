//! The service manager that started the process, such as systemd, by sd_notify(3).

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// The service manager that started the process. Without one nothing is sent.
#[derive(Debug)]
pub(super) struct ServiceManager {
    /// To the thread that sends: a service manager that does not read its socket would block the run.
    messages: Option<SyncSender<ServiceMessage>>,
    watchdog: Option<WatchdogFeed>,
    status: String,
    status_due: Instant,
}

/// A message to the service manager.
#[derive(Debug)]
enum ServiceMessage {
    Ready,
    Status(String),
    Watchdog,
    Stopping,
}

/// The work of the process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ProcessActivity {
    /// A number that changes with every progress: bytes, requests, results.
    pub(super) progress: u64,
    /// `true` if an upload is under way.
    pub(super) has_work: bool,
    /// The seconds for which requests have waited for a limit of the service so far.
    pub(super) throttled_seconds: f64,
    /// A number that changes while the watch on directories works; `None` without one.
    pub(super) watch_steps: Option<u64>,
}

impl ServiceManager {
    /// Finds the service manager in the environment.
    pub(super) fn new(now: Instant) -> ServiceManager {
        let messages = std::env::var_os("NOTIFY_SOCKET").and_then(|_| start_sender());
        // WATCHDOG_USEC without NOTIFY_SOCKET names a watchdog that cannot be fed.
        let watchdog = messages.as_ref().and_then(|_| sd_notify::watchdog_enabled());
        let watchdog = watchdog.map(|timeout| WatchdogFeed::new(timeout, now));
        ServiceManager { messages, watchdog, status: String::new(), status_due: now }
    }

    /// Reports that the service works.
    pub(super) fn ready(&self) {
        self.send(ServiceMessage::Ready);
    }

    /// Reports that the service ends.
    pub(super) fn stopping(&self) {
        self.send(ServiceMessage::Stopping);
    }

    /// Reports the state for people. A change is reported once a second at most.
    pub(super) fn status(&mut self, status: impl FnOnce() -> String, now: Instant) {
        if self.messages.is_none() || now < self.status_due {
            return;
        }
        self.status_due = now + BETWEEN_STATUS;
        let status = status();
        if status != self.status {
            self.send(ServiceMessage::Status(status.clone()));
            self.status = status;
        }
    }

    /// Feeds the watchdog if that is due and the process is in order.
    pub(super) fn feed(&mut self, activity: ProcessActivity, now: Instant) {
        if self.watchdog.as_mut().is_some_and(|watchdog| watchdog.is_to_be_fed(activity, now)) {
            self.send(ServiceMessage::Watchdog);
        }
    }

    fn send(&self, message: ServiceMessage) {
        if let Some(messages) = &self.messages {
            // With a full queue the service manager has not read for a long time.
            let _ = messages.try_send(message);
        }
    }
}

/// The rule by which the watchdog is fed. Pure: the time is an argument.
///
/// The watchdog is fed while there is progress, nothing to do, or a pause that the service requested, and the watch on
/// directories works. A run that hangs is not fed, although its timers go on.
#[derive(Debug)]
struct WatchdogFeed {
    interval: Duration,
    due: Instant,
    last: Option<ProcessActivity>,
}

impl WatchdogFeed {
    fn new(timeout: Duration, now: Instant) -> WatchdogFeed {
        // More often than the half that sd_watchdog_enabled(3) recommends: one quarter without progress is no end.
        WatchdogFeed { interval: timeout / 4, due: now, last: None }
    }

    fn is_to_be_fed(&mut self, activity: ProcessActivity, now: Instant) -> bool {
        if now < self.due {
            return false;
        }
        self.due = now + self.interval;
        let Some(last) = self.last.replace(activity) else { return true };
        let is_pausing = activity.throttled_seconds > last.throttled_seconds;
        let is_in_order = !activity.has_work || is_pausing || activity.progress != last.progress;
        let is_watching = activity.watch_steps.is_none() || activity.watch_steps != last.watch_steps;
        is_in_order && is_watching
    }
}

/// Starts the thread that sends messages. It is not joined: the end of the process ends it.
fn start_sender() -> Option<SyncSender<ServiceMessage>> {
    let (sender, messages) = sync_channel(QUEUE_LEN);
    let thread = thread::Builder::new().name("ringlift-notify".to_owned());
    thread.spawn(move || send_all(&messages)).ok().map(|_| sender)
}

fn send_all(messages: &Receiver<ServiceMessage>) {
    for message in messages {
        let sent = match &message {
            ServiceMessage::Ready => sd_notify::notify(&[NotifyState::Ready]),
            ServiceMessage::Status(status) => sd_notify::notify(&[NotifyState::Status(status)]),
            ServiceMessage::Watchdog => sd_notify::notify(&[NotifyState::Watchdog]),
            ServiceMessage::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
        };
        if let Err(error) = sent {
            tracing::debug!(%error, ?message, "the service manager was not notified");
        }
    }
}

// Some seconds of messages: a service manager that reloads its units does not read meanwhile.
const QUEUE_LEN: usize = 16;

// `systemctl status` shows only the last one.
const BETWEEN_STATUS: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn activity() -> impl Strategy<Value = ProcessActivity> {
        let parts = (0u64..3, any::<bool>(), 0u8..3, prop::option::of(0u64..3));
        parts.prop_map(|(progress, has_work, throttled, watch_steps)| ProcessActivity {
            progress,
            has_work,
            throttled_seconds: f64::from(throttled),
            watch_steps,
        })
    }

    proptest! {
        #[test]
        fn the_watchdog_is_fed_only_while_the_run_is_in_order(
            steps in prop::collection::vec((activity(), 0u64..5000), 1..40)
        ) {
            let mut now = Instant::now();
            let mut feed = WatchdogFeed::new(Duration::from_secs(8), now);
            let mut last: Option<ProcessActivity> = None;
            let mut due = now;
            for (activity, millis) in steps {
                now += Duration::from_millis(millis);
                let is_fed = feed.is_to_be_fed(activity, now);
                if now < due {
                    prop_assert!(!is_fed);
                    continue;
                }
                due = now + Duration::from_secs(2);
                if let Some(last) = last {
                    let moves = activity.progress != last.progress || activity.throttled_seconds > last.throttled_seconds;
                    let is_idle = !activity.has_work;
                    let is_watching = activity.watch_steps.is_none_or(|steps| last.watch_steps != Some(steps));
                    prop_assert_eq!(is_fed, (moves || is_idle) && is_watching);
                } else {
                    prop_assert!(is_fed);
                }
                last = Some(activity);
            }
        }
    }

    #[test]
    fn a_run_that_hangs_is_not_fed_until_the_timeout() {
        let start = Instant::now();
        let mut feed = WatchdogFeed::new(Duration::from_secs(8), start);
        let hangs = |watch_steps| ProcessActivity {
            has_work: true,
            watch_steps: Some(watch_steps),
            ..ProcessActivity::default()
        };
        assert!(feed.is_to_be_fed(hangs(0), start));
        for second in 1..20 {
            assert!(!feed.is_to_be_fed(hangs(second), start + Duration::from_secs(second)), "{second}");
        }
    }
}
