//! Image search: an index of the images of a folder or of shards, and the nearest ones to a text or an image.
//!
//! A [`Collection`] lists images without reading them. [`update`] brings an index up to date: only images that are new
//! or changed are embedded, and a killed update goes on where it was. [`Nearest`] ranks the images of an [`Index`] by the
//! cosine of their embeddings with that of a query, over all of them.
//!
//! ```no_run
//! use flip::log::Progress;
//! use flip::search::{update, Collection, Nearest, UpdateOptions};
//! use flip::trained::Trained;
//!
//! let trained = Trained::open("runs/mine")?;
//! let collection = Collection::open(&["holiday".into()])?;
//! let options = UpdateOptions { path: "holiday/flip.index".into(), rebuild: false };
//! let updated = update(&trained, &collection, &options, &Progress::new())?;
//! let query = trained.embed_text("two dogs on a beach")?;
//! for found in Nearest::new()?.to(&updated.index, &query, 10, None) {
//!     println!("{:.3} {}", found.score, collection.name(updated.index.place(found.row)));
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(missing_docs)]

mod collection;
mod error;
mod index;
mod index_file;
mod nearest;
mod plan;
mod update;

pub use collection::{Collection, IndexedFile, Place};
pub use error::SearchError;
pub use index::{Entry, Index};
pub use nearest::{Found, Nearest};
pub use update::{update, UpdateOptions, Updated};
