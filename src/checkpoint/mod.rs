//! Atomic, hashed snapshots of a run.
//!
//! A snapshot is a folder that is either whole or not there:
//!
//! ```text
//! checkpoints/stage0-step00000500/
//!   model.safetensors       f32, little-endian, sorted by name; a file a stem
//!   optimizer.safetensors
//!   state.json              whatever the caller needs to continue
//!   manifest.json           format version, name, bytes and sha256 of every other file
//! ```
//!
//! It is written into a hidden sibling folder, every file is synced, and one rename makes it appear. A kill
//! at any moment leaves the former snapshots and at most a hidden folder, which [`prepare`] removes. The
//! same tensors and state give the same bytes: nothing in it depends on time or order of insertion.
//!
//! Values are stored bit for bit, non-finite ones included: the stage decides if a NaN may be saved, as it
//! knows the step that made it.
//!
//! ```
//! use flip::checkpoint::{newest, write, Name, TensorView};
//!
//! # let there = tempfile::tempdir()?;
//! # let folder = there.path();
//! let tensors = vec![TensorView { name: "logit_scale", shape: &[], data: &[2.659] }];
//! write(folder, Name { stage: 0, step: 500 }, &[("model", tensors)], &"the state")?;
//!
//! let found = newest(folder)?;
//! let snapshot = found.snapshot.ok_or("no snapshot is whole")?;
//! assert_eq!(snapshot.state::<String>()?, "the state");
//! for tensor in snapshot.tensors("model")? {
//!     println!("{} {:?}: {:?}", tensor.name, tensor.shape, tensor.data);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(missing_docs)]

mod config;
mod error;
mod init;
mod manifest;
mod name;
mod read;
mod retain;
mod snapshot;
mod tensors;
mod write;

pub use config::CheckpointConfig;
pub use error::CheckpointError;
pub use init::{run_of, InitConfig};
pub use name::Name;
pub use read::{newest, read};
pub use retain::{prepare, retain};
pub use snapshot::{Found, Snapshot, Stored};
pub use tensors::{NoValues, Show, TensorFile, TensorView};
pub use write::{visit, write, write_files};
