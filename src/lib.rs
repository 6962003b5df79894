//! `flip` pre-trains CLIP-style image-text models by masking ("Scaling Language-Image Pre-training via
//! Masking", arXiv 2212.00794): most image patches are dropped before the encoder, so that a step costs
//! two to four times less; a short unmasked tuning follows; then evaluation.
//!
//! The [`guide`] tells how to use it. Data flows one way: recipe -> data -> model -> train -> evaluate. The modules:
//!
//! | module | holds |
//! |---|---|
//! | [`recipe`] | one RON document, read, checked, explained |
//! | [`interpreter`] | runs a recipe: device, then stage after stage |
//! | [`train`] | the stages of a run: pretrain, unmask, evaluate |
//! | [`model`] | both encoders and the contrastive loss, as a dfdx graph |
//! | [`kernel`] | what the fused encoders compute, on slices: products, attention, norms, loss |
//! | [`parameter`] | named parameters and their roles |
//! | [`mask`] | which patches and tokens an encoder gets to see |
//! | [`data`] | sources of image-text pairs, decoding, tokenizing, ordered prefetch |
//! | [`optimizer`] | AdamW, learning-rate schedule, clipping |
//! | [`evaluator`] | zero-shot classification, retrieval, neighbours, linear probe, few-shot, held-out loss |
//! | [`ranks`] | the processes of one run, and how they talk |
//! | [`checkpoint`] | atomic, hashed snapshots |
//! | [`exchange`] | checkpoints of other tools, in and out |
//! | [`log`] | tracing, reloadable while running; metrics files |
//! | [`report`] | curves, images and tables that a person looks at, of one run or several |
//! | [`sweep`] | one recipe in many variants: a grid of runs, resumed and compared |
//! | [`command`] | the command line: one file a subcommand |
//! | [`embeddings`] | files of embeddings, as they grow |
//! | [`search`] | an index of images, and the nearest ones to a text or an image |
//! | [`trained`] | a trained model opened for use: an image or a text embedded in a line |
//! | [`terminal`] | standard output and error, which can be closed, full or gone |
//! | [`outside`] | text from outside, made safe for where it is shown |
//! | [`record`] | the files of a run folder: where they lie, their rows, writing and reading them |
//! | [`whole_file`], [`device`], [`duration`], [`pause`], [`seed`] | small leaves |

pub mod checkpoint;
pub mod command;
pub mod data;
pub mod device;
pub mod duration;
pub mod embeddings;
pub mod evaluator;
pub mod exchange;
pub mod guide;
pub mod interpreter;
pub mod kernel;
pub mod log;
pub mod mask;
pub mod model;
pub mod optimizer;
pub mod outside;
pub mod parameter;
pub mod pause;
pub mod ranks;
pub mod recipe;
pub mod record;
pub mod report;
pub mod search;
pub mod seed;
pub mod sweep;
pub mod terminal;
pub mod train;
pub mod trained;
pub mod whole_file;
