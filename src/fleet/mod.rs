//! The fleet: several hosts that share one queue of jobs.
//!
//! [`NatsJobStore`] keeps the jobs of an account in NATS JetStream. A job is one record under one key, and every change
//! is a compare-and-set of that record (`bucket`). The transitions are pure functions of the record and the time
//! (`transition`), with the rules of leases that every store has. No message carries work: a worker keeps an index of
//! the records' headers (`index`), reads what has changed since, and claims the first job that is due. A message that is
//! lost, doubled or late can therefore neither lose a job nor give it to two workers.
//!
//! No type of the NATS client is public.

mod address;
mod bucket;
mod budget;
mod claiming;
mod clock;
mod connection;
mod failure;
mod index;
mod last_look;
mod listing;
mod live;
mod names;
mod operations;
mod options;
mod own_writes;
mod projection;
mod reading;
mod record;
mod store;
mod transition;
mod tries;
mod watch;

#[cfg(test)]
mod nats_server;
#[cfg(test)]
mod tests;

pub use address::{NatsAddress, NatsAddressFlaw};
pub use options::NatsOptions;
pub use store::NatsJobStore;
