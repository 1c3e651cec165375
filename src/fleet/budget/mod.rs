//! The request budget of an account, shared by the workers of all hosts.
//!
//! A worker takes requests from the shared budget in small blocks (`gcra`), by compare-and-set of one record for each
//! class, and spends them without a request (`ledger`). The pacer of a client asks the ledger, which answers at once
//! in any case: a worker without the servers spends its share of the limit alone.

mod gcra;
mod ledger;
mod sync;

pub(super) use sync::start;
