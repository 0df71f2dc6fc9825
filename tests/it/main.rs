//! Integration tests: the engine against PyTorch's numbers, the real libraries through the real loader, the command line.

mod checkpoint;
mod golden;
mod oracle;
mod support;
mod tidy;
mod training;
