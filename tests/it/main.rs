//! Integration tests: the engine against PyTorch's numbers, the real libraries through the real loader, the command line.

// Helpers of tests stand outside `#[test]` functions, where clippy cannot see that they are tests.
#![allow(clippy::unwrap_used)]

mod c_abi;
mod c_library;
mod c_program;
mod checkpoint;
mod cli;
mod export;
mod families;
mod full_size;
mod golden;
mod host;
mod oracle;
mod pickles;
mod plugins;
mod sampling;
mod support;
mod tidy;
mod training;
