//! The fate of a file once the service has confirmed it: it is kept, moved or deleted.

mod action;
mod late;
mod mover;
#[cfg(test)]
mod tests;

pub use action::{AfterAction, AfterActionError, AfterOutcome, UnknownAfterAction};
