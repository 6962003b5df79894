//! Forecast for many devices, from the work of one.
//!
//! With R ranks, G of them on each host, a batch of B pairs, embeddings of d values, P parameters of which I are the image
//! encoder's, a link of L bytes a second from each rank out of its host, N within it, and T seconds for the pairs of one rank:
//!
//! - the ring sends `4 (B - B / R) (4 d + 2)` bytes from each rank, and every host has one rank whose neighbour is on
//!   another: it goes at the speed of L,
//! - gradients of n values are summed in pieces and handed back: `2 * 4 n (R - 1) / R` bytes from each rank, in
//!   [messages](crate::ranks::reduce::messages) that take 5 us each beside their bytes; of these `(G - 1) / (R - 1)` stay
//!   within the host, and the two shares travel at once,
//! - where the optimizer's state is sharded, what is handed back are updated parameters, after the backward pass, each
//!   from its owner to all, and half as many bytes for those of weights whose masters are sharded too,
//! - the exchange of the image encoder's gradients runs while the text encoder runs backward, `2/3 T` times its share in the
//!   FLOPs,
//! - the loss of several ranks is computed by the processor, also where the encoders run on a GPU: `12 B^2 d / R` operations
//!   at 10^12 a second,
//! - so a step takes `T + loss + ring + max(0, exchange(I) - back) + exchange(P - I) + 4 R hops`, a hop for each tile that
//!   starts from each rank, four times round; with sharded state, `exchange(I)` is the half that sums, and what is handed
//!   back takes its time at the end.
//!
//! A host reads the bytes of its pairs. A checkpoint is masters and both moments, `12 P` bytes that rank 0 writes; what other ranks
//! hold of it comes over the link first.
//!
//! A rank's memory is that of its pairs on one device, with `8 P / R` bytes of moments in the place of `8 P` and `4 / R` in
//! the place of 4 for each weight whose master is sharded; beside it, the pieces of an exchange
//! ([`scratch_bytes`](crate::ranks::reduce::scratch_bytes)), and where it computes n parts of a batch one after the other, the
//! larger encoder's gradients `log2 n` more times. Gradients count whole in every mode: those of both encoders may meet, the image encoder's on their way and the
//! text encoder's as they arise.

mod device;
mod error;
mod forecast;
mod size;
mod traffic;

pub use device::{device, link, Device, DEVICES};
pub use error::ClusterError;
pub use forecast::ClusterForecast;
pub use size::{Cluster, DataSize};
