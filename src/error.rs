//! The public error: what kind, what was being done, and the source.
