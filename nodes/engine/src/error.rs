//! The engine's one error type: what went wrong, of which kind, and what to do about it.

use std::fmt;
use std::path::Path;

/// The kinds that a caller can act on. They are the contract's kinds, so a node passes them on unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// A value given by the user is out of range or contradicts another.
    InvalidInput,
    /// A file, a folder or a name does not exist.
    NotFound,
    /// A file or tensor exists but does not fit: wrong structure, shape, type or family.
    Incompatible,
    /// Memory would not suffice.
    OutOfMemory,
    /// The caller asked to stop.
    Cancelled,
    /// Training left the finite numbers and could not be brought back.
    Diverged,
    /// Everything else: a failure of the engine or the libraries below it.
    Internal,
}

/// An error with a lower-case message that names the file, the tensor, what was found and what was wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What a caller can act on.
    pub kind: ErrorKind,
    /// What happened.
    pub message: String,
    /// What to do about it; may be empty.
    pub help: String,
}

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of the given kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), help: String::new() }
    }

    /// A value given by the user is out of range or contradicts another.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    /// A file, a folder or a name does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// A file or tensor exists but does not fit.
    pub fn incompatible(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Incompatible, message)
    }

    /// The caller asked to stop.
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "cancelled")
    }

    /// A failure of reading or writing `path`: [`ErrorKind::NotFound`] where the system says so.
    pub fn io(path: &Path, error: &std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::OutOfMemory => ErrorKind::OutOfMemory,
            _ => ErrorKind::Internal,
        };
        Self::new(kind, format!("{}: {error}", path.display()))
    }

    /// The same error with advice on what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// The same error with `context: ` before its message.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.help.is_empty() {
            write!(f, " ({})", self.help)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        let text = error.to_string();
        let kind = if text.contains("out of memory") || text.contains("OUT_OF_MEMORY") {
            ErrorKind::OutOfMemory
        } else {
            ErrorKind::Internal
        };
        Self::new(kind, text)
    }
}
