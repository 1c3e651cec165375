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

async fn run(ledger: Weak<Ledger>, engine: Arc<Engine>) {
    while let Some(ledger) = ledger.upgrade() {
        for class in Class::ALL {
            let Some(need) = ledger.need(class, Instant::now()) else { continue };
            // A request to a server that is away would hold the uploads up.
            let exchanged = engine.live.is_connected()
                && tokio::time::timeout(LONGEST_EXCHANGE, exchange(&ledger, class, need, &engine))
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
async fn exchange(ledger: &Ledger, class: Class, need: BudgetNeed, engine: &Engine) -> Result<(), Failure> {
    let key = format!("limit.{}", class.name());
    for attempt in 0..MOST_TRIES {
        let (found, revision) = engine.live.read::<SharedLimit>(&key).await?;
        // The first worker of the account finds no record.
        let mut limit = found.unwrap_or_default();
        let now_ms = engine.server_time().await?.get();
        limit.observe(need.seen, now_ms);
        let reservation = if need.wants_block {
            limit.reserve(block(limit.per_minute), now_ms)
        } else {
            Reservation::Granted(0)
        };
        let (granted, ask_at_ms) = match reservation {
            Reservation::Granted(count) => (count, None),
            Reservation::AskAgain(at) => (0, Some(at)),
        };
        match engine.live.write(&key, &limit, revision).await {
            Ok(()) => {
                let now = Instant::now();
                // The spread keeps workers that wait for the same moment from meeting.
                let wait = |at: u64| {
                    Duration::from_millis(at.saturating_sub(now_ms)).mul_f64(1.0 + fastrand::f64() / 10.0)
                };
                let ask_at = ask_at_ms.map(|at| now + wait(at));
                ledger.exchanged(class, need.answers, granted, ask_at, limit.per_minute, now);
                return Ok(());
            }
            Err(Failure::Refused) => {
                // Another worker was faster. A random pause keeps the two from meeting again.
                let longest = SHORTEST_PAUSE * (1 << attempt);
                tokio::time::sleep(longest.mul_f64(fastrand::f64())).await;
            }
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure::Refused)
}

/// The tries of one exchange. Each is lost to another worker's success.
const MOST_TRIES: u32 = 8;
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The time after which a worker goes on without the shared budget.
const LONGEST_EXCHANGE: Duration = Duration::from_secs(2);
