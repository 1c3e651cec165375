//! The rate of the requests that the service receives, in every sliding minute.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use crate::support::TestServer;

/// A count of the requests with chunks, taken many times a second while it runs.
pub struct RequestMeter<'scope> {
    thread: ScopedJoinHandle<'scope, usize>,
}

impl<'scope> RequestMeter<'scope> {
    /// Counts until `is_over`.
    pub fn start<'env>(
        scope: &'scope thread::Scope<'scope, 'env>,
        server: &'scope TestServer,
        is_over: &'scope AtomicBool,
    ) -> RequestMeter<'scope> {
        RequestMeter { thread: scope.spawn(|| busiest_minute(server, is_over)) }
    }

    /// Returns the most requests in any sliding minute.
    pub fn busiest_minute(self) -> usize {
        self.thread.join().unwrap()
    }
}

fn busiest_minute(server: &TestServer, is_over: &AtomicBool) -> usize {
    let mut samples: VecDeque<(Instant, usize)> = VecDeque::new();
    let mut busiest = 0;
    while !is_over.load(Ordering::Relaxed) {
        let (now, count) = (Instant::now(), server.chunk_requests().len());
        samples.push_back((now, count));
        // The oldest sample of the last minute stays, and nothing before it.
        while samples.front().is_some_and(|(at, _)| now.duration_since(*at) > MINUTE) {
            samples.pop_front();
        }
        busiest = busiest.max(count - samples.front().map_or(count, |(_, first)| *first));
        thread::sleep(BETWEEN_SAMPLES);
    }
    busiest
}

const MINUTE: Duration = Duration::from_secs(60);
const BETWEEN_SAMPLES: Duration = Duration::from_millis(100);
