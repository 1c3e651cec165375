//! A chunk as a hyper `Body`: envelope, blocks, envelope.
