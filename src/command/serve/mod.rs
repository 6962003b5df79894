//! `flip serve`: image search from a browser and over HTTP.

#[cfg(feature = "serve")]
mod answer;
mod args;
#[cfg(feature = "serve")]
mod gate;
#[cfg(feature = "serve")]
mod routes;
#[cfg(feature = "serve")]
mod server;
#[cfg(feature = "serve")]
mod worker;

pub use args::ServeArgs;

use super::{Failure, Outcome};

#[cfg(feature = "serve")]
pub fn serve(args: &ServeArgs) -> Result<Outcome, Failure> {
    server::serve(args)
}

#[cfg(not(feature = "serve"))]
pub fn serve(_args: &ServeArgs) -> Result<Outcome, Failure> {
    Err(Failure::Usage(
        "this flip was built without the feature `serve`; build it with `--features serve`".into(),
    ))
}
