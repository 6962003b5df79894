//! The `flip` program; everything it does is in the library.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    flip::command::Cli::parse().execute()
}
