//! Bytes by extent.
