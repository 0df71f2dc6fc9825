//! Lines on standard output. A reader that went away (`vocable nodes | head`) is no reason to panic.

use std::io::Write;

/// Prints a line.
pub(crate) fn line(text: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}
