//! The `flip` program; everything it does is in the library.

mod huge_pages;

use std::process::ExitCode;

#[global_allocator]
static MEMORY: huge_pages::HugePages = huge_pages::HugePages;

fn main() -> ExitCode {
    flip::command::Cli::given().map_or_else(|code| code, flip::command::Cli::execute)
}
