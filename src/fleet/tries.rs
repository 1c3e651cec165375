//! Repetition of requests that were refused or not answered.

use std::time::{Duration, Instant};

use super::failure::{Failure, Trouble};

/// The tries of one operation: until [`LONGEST_OPERATION`] is over.
#[derive(Debug)]
pub(super) struct Tries {
    begun: Instant,
    tries: u32,
}

impl Tries {
    pub(super) fn new() -> Tries {
        Tries { begun: Instant::now(), tries: 0 }
    }

    /// Waits before the next try. Fails if the failure is not one that another try may overcome, or the time is over.
    pub(super) async fn pause(&mut self, failure: Failure) -> Result<(), Failure> {
        let may_pass = matches!(failure, Failure::Refused | Failure::Uncertain(..));
        if !may_pass || self.begun.elapsed() > LONGEST_OPERATION {
            return Err(failure);
        }
        self.tries += 1;
        // The spread keeps writers of the same key from meeting again. The exponent is limited before the shift.
        let longest = (SHORTEST_PAUSE * (1 << self.tries.min(8))).min(LONGEST_PAUSE);
        tokio::time::sleep(longest.mul_f64(fastrand::f64())).await;
        Ok(())
    }

    /// Runs a request, which may be carried out any number of times, until it succeeds or another try would not help.
    pub(super) async fn repeat<T, E: Into<Trouble>, F: Future<Output = Result<T, E>>>(
        &mut self,
        request: impl Fn() -> F,
    ) -> Result<T, Trouble> {
        loop {
            match request().await.map_err(Into::into) {
                Err(Trouble::Engine(failure)) => self.pause(failure).await?,
                outcome => return outcome,
            }
        }
    }
}

/// The time for which an operation is tried again: less than a third of the default lease, after which a worker renews.
const LONGEST_OPERATION: Duration = Duration::from_secs(15);
const SHORTEST_PAUSE: Duration = Duration::from_millis(4);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
