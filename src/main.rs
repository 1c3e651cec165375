//! The `ringlift` command.

fn main() {}
