//! Arguments of `flip serve`.

use std::net::IpAddr;

use clap::Args;

use crate::command::search::IndexArgs;

#[derive(Debug, Args)]
#[command(after_help = "\
Over HTTP, all answers JSON but images:
  GET  /search?text=TEXT&k=10   images nearest to a text
  POST /search?k=10             images nearest to the image file in the body
  GET  /neighbours?id=N&k=10    images nearest to an image of the index
  GET  /image?id=N              an image of the index; /thumbnail?id=N, a small JPEG of it
  GET  /info                    images, model")]
pub struct ServeArgs {
    #[command(flatten)]
    pub index: IndexArgs,
    /// Port; 0 takes any that is free.
    #[arg(long, default_value_t = 8017)]
    pub port: u16,
    /// Address that is listened on. Any but the loopback ones lets others search and see these images: there are no passwords.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub host: IpAddr,
}
