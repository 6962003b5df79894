//! The command line: one file a subcommand.

pub mod schema;
pub mod validate;
