//! The events about the number of connections in use.

use std::time::{Duration, Instant};

use ringlift::bulk::JsonEvent;
use ringlift::{Client, LaneControl, LaneHold, Settings};

use super::console::Console;

/// Writes an event when the number of connections in use, or the reason why it is kept, has changed.
#[derive(Debug)]
pub(super) struct LaneWatch {
    most: u64,
    /// The number in use, and the hold other than too few chunks, as the last event showed them.
    shown: Option<(u64, Option<LaneHold>)>,
    /// The number in use at the start, which needs no event.
    first: u64,
    /// The time before which no further event is written; `None` if the number is fixed.
    due: Option<Instant>,
}

impl LaneWatch {
    pub(super) fn new(settings: &Settings, client: &Client) -> LaneWatch {
        let is_automatic = settings.lane_control == LaneControl::Automatic;
        let due = is_automatic.then(|| Instant::now() + EVENT_INTERVAL);
        let first = client.snapshot().lanes.permitted;
        LaneWatch { most: settings.lanes as u64, shown: None, first, due }
    }

    /// Writes the event if one is due. Does nothing for a fixed number.
    pub(super) fn show(&mut self, client: &Client, console: &Console) {
        let now = Instant::now();
        // While the output is not read, a later event replaces this one.
        if self.due.is_none_or(|due| now < due) || !console.output().has_room() {
            return;
        }
        self.due = Some(now + EVENT_INTERVAL);
        let snapshot = client.snapshot();
        let (lanes, hold) = (snapshot.lanes.permitted, snapshot.lane_hold);
        // Every file has too few chunks at its end.
        let current = (lanes, hold.filter(|hold| *hold != LaneHold::Work));
        let is_usual = self.shown.is_none() && current.1.is_none() && lanes == self.first;
        if !is_usual && self.shown.replace(current) != Some(current) {
            console.emit(&JsonEvent::Lanes { lanes, most: self.most, hold: hold.map(LaneHold::name) });
        }
    }
}

/// Bounds the events of a search, which tries several numbers within seconds.
const EVENT_INTERVAL: Duration = Duration::from_secs(1);
