//! The task that exchanges the ledger with the shared budget.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::gcra::{Reservation, SharedLimit, block};
use super::ledger::{BudgetNeed, Ledger};
use crate::fleet::failure::Failure;
use crate::fleet::operations::Engine;
use crate::pacing::{Class, SharedBudget};

/// Starts the task, which ends once the budget and the store are dropped.
pub(in crate::fleet) fn start(runtime: &tokio::runtime::Handle, engine: Arc<Engine>) -> SharedBudget {
    let ledger = Arc::new(Ledger::default());
    runtime.spawn(run(Arc::downgrade(&ledger), engine));
    SharedBudget::new(ledger)
}

/// The shared budget of a class as this process has written it last.
#[derive(Debug, Default)]
struct LastBudget {
    limit: SharedLimit,
    revision: u64,
    /// The number of the connection by which it was written.
    connection: u64,
    /// `true` if no other worker wrote between the last two writes of this one.
    is_alone: bool,
}

async fn run(ledger: Weak<Ledger>, engine: Arc<Engine>) {
    let mut last: [LastBudget; Class::ALL.len()] = Default::default();
    while let Some(ledger) = ledger.upgrade() {
        for (class, last) in Class::ALL.into_iter().zip(&mut last) {
            let Some(need) = ledger.need(class, Instant::now()) else { continue };
            // A request to a server that is away would hold the uploads up.
            let exchanged = engine.live.is_connected()
                && tokio::time::timeout(LONGEST_EXCHANGE, exchange(&ledger, class, need, &engine, last))
                    .await
                    .is_ok_and(|exchanged| exchanged.is_ok());
            if !exchanged {
                ledger.alone(class, engine.live.worker_count(), fastrand::f64(), Instant::now());
            }
        }
        let pause = ledger.ask_at().map_or(LONGEST_PAUSE, |at| at.saturating_duration_since(Instant::now()));
        // Bounded, so that the task notices that the budget was dropped.
        let _ =
            tokio::time::timeout(pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE), ledger.wanted.notified()).await;
    }
}

/// Shares what the service answered, and takes a block.
async fn exchange(
    ledger: &Ledger,
    class: Class,
    need: BudgetNeed,
    engine: &Engine,
    last: &mut LastBudget,
) -> Result<(), Failure> {
    for attempt in 0..MOST_TRIES {
        match last.exchange(ledger, class, need, engine).await {
            Err(Failure::Refused) => {
                // Another worker was faster. A random pause keeps the two from meeting again.
                let longest = SHORTEST_PAUSE * (1 << attempt);
                tokio::time::sleep(longest.mul_f64(fastrand::f64())).await;
            }
            exchanged => return exchanged,
        }
    }
    Err(Failure::Refused)
}

impl LastBudget {
    /// Tries an exchange once. Fails with [`Failure::Refused`] if another worker was faster.
    async fn exchange(
        &mut self,
        ledger: &Ledger,
        class: Class,
        need: BudgetNeed,
        engine: &Engine,
    ) -> Result<(), Failure> {
        let key = format!("limit.{}", class.name());
        let connection = engine.live.connection();
        let (mut limit, revision) = self.newest(&key, connection, engine).await?;
        let was_alone = self.revision == revision && self.connection == connection;
        // Until the write has succeeded, its record is not known.
        self.is_alone = false;
        let now_ms = engine.server_time().await?.get();
        limit.observe(need.seen, now_ms);
        let (granted, ask_at_ms) = if need.wants_block { reserve(&mut limit, now_ms) } else { (0, None) };
        let written = engine.live.write(&key, &limit, revision).await?;
        let per_minute = limit.per_minute;
        *self = LastBudget { limit, revision: written, connection, is_alone: was_alone };
        let now = Instant::now();
        let ask_at = ask_at_ms.map(|at| now + spread(at.saturating_sub(now_ms)));
        ledger.exchanged(class, need.answers, granted, ask_at, per_minute, now);
        Ok(())
    }

    /// Returns the budget of a class and its revision.
    async fn newest(
        &self,
        key: &str,
        connection: u64,
        engine: &Engine,
    ) -> Result<(SharedLimit, u64), Failure> {
        if self.is_alone && self.connection == connection {
            // The budget of a worker that is alone is the one that it has written.
            return Ok((self.limit.clone(), self.revision));
        }
        let (found, revision) = engine.live.read::<SharedLimit>(key).await?;
        // The first worker of the account finds no record.
        Ok((found.unwrap_or_default(), revision))
    }
}

/// Takes a block of requests. Returns their number, and the time to ask again if none is left.
fn reserve(limit: &mut SharedLimit, now_ms: u64) -> (u32, Option<u64>) {
    match limit.reserve(block(limit.per_minute), now_ms) {
        Reservation::Granted(count) => (count, None),
        Reservation::AskAgain(at) => (0, Some(at)),
    }
}

/// Returns a wait that keeps workers from meeting again that wait for the same moment.
fn spread(wait_ms: u64) -> Duration {
    Duration::from_millis(wait_ms).mul_f64(1.0 + fastrand::f64() / 10.0)
}

/// The tries of one exchange. Each is lost to another worker's success.
const MOST_TRIES: u32 = 8;
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The time after which a worker goes on without the shared budget.
const LONGEST_EXCHANGE: Duration = Duration::from_secs(2);
