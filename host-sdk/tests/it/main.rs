//! The host from outside: validation, runs, and real plugin files.

#![allow(clippy::unwrap_used)] // Helpers of tests may; clippy knows only functions marked as tests.

mod execution;
mod files;
mod nodes;
mod validation;
