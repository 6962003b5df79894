//! Dependencies between the modules and files of src/.

mod circles;
mod layers;
mod names;
mod tokens;
