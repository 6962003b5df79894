//! The guide: how to use `flip`, a page a subject. The same pages are readable in the repository under `src/guide`.
//!
//! | page | about |
//! |---|---|
//! | [`recipes`] | fields, overrides, run folder, logging, exit codes |
//! | [`data`] | sources, order, remote storage, filters, broken data |
//! | [`evaluation`] | evaluators, data sets, preprocessing |
//! | [`search`] | images by text or by image: command, index, browser, HTTP |
//! | [`training`] | lengths, learning rates, and what the paper does not have |
//! | [`checkpoints`] | resuming, import, starting from a model, export, embedding |
//! | [`studies`] | sweeps and studies |
//! | [`many_processes`] | MPI, the same numbers on any number of ranks |
//! | [`clusters`] | Slurm, Kubernetes, mpirun; slow ranks; forecast |
//! | [`gpu`] | NVIDIA GPUs: build, how a step runs, what has not run on hardware |
//! | [`checks`] | how all of it is checked |
//! | [`benchmarks`] | dated results, one machine each |

/// A page with the links that rustdoc needs in front. Of two definitions of a link the first counts, so the page's own,
/// which lead to files, serve a reader of the repository.
macro_rules! page {
    ($name:ident, $file:literal) => {
        #[doc = include_str!("links.txt")]
        #[doc = include_str!($file)]
        pub mod $name {}
    };
}

page!(checkpoints, "checkpoints.md");
page!(checks, "checks.md");
page!(clusters, "clusters.md");
page!(data, "data.md");
page!(evaluation, "evaluation.md");
page!(gpu, "gpu.md");
page!(many_processes, "many_processes.md");
page!(recipes, "recipes.md");
page!(search, "search.md");
page!(studies, "studies.md");
page!(training, "training.md");

#[doc = include_str!("links.txt")]
#[doc = include_str!("benchmarks.md")]
pub mod benchmarks {
    #[doc = include_str!("benchmarks/emerald_rapids.md")]
    pub mod emerald_rapids {}
    #[doc = include_str!("benchmarks/zen4.md")]
    pub mod zen4 {}
    #[doc = include_str!("benchmarks/zen5.md")]
    pub mod zen5 {}
}
