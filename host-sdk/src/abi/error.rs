//! What a node answers when it cannot do what was asked.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Why a node failed, as far as a host can act on it.
///
/// Crosses the border as its number; numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ErrorKind {
    /// An input has a value that the node cannot take; the user can change it.
    InvalidInput = 1,
    /// A file, a folder or a name does not exist.
    NotFound = 2,
    /// Two things are each fine but do not fit together, such as an embedding and a model of another family.
    Incompatible = 3,
    /// Memory is short; the host may free what it holds and try once more.
    OutOfMemory = 4,
    /// The host asked to stop, and the node did.
    Cancelled = 5,
    /// Training left the finite numbers.
    Diverged = 6,
    /// The node panicked: a bug in the plugin. It may be called again.
    Panicked = 7,
    /// Anything else.
    Internal = 8,
}

impl ErrorKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [ErrorKind; 8] = [
        Self::InvalidInput,
        Self::NotFound,
        Self::Incompatible,
        Self::OutOfMemory,
        Self::Cancelled,
        Self::Diverged,
        Self::Panicked,
        Self::Internal,
    ];

    /// The kind's number on the border.
    pub fn code(self) -> u32 {
        self as u32
    }

    /// The kind with that number; [`Internal`](Self::Internal) for numbers of a later contract.
    pub fn from_code(code: u32) -> Self {
        Self::ALL.into_iter().find(|kind| kind.code() == code).unwrap_or(Self::Internal)
    }

    /// The kind's name, as in `InvalidInput`.
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidInput => "InvalidInput",
            Self::NotFound => "NotFound",
            Self::Incompatible => "Incompatible",
            Self::OutOfMemory => "OutOfMemory",
            Self::Cancelled => "Cancelled",
            Self::Diverged => "Diverged",
            Self::Panicked => "Panicked",
            Self::Internal => "Internal",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An error with what the user needs: what was found and wanted, and what to do about it.
///
/// `message` is in lower case, without a full stop, and names the file or the tensor. `help` is a whole sentence, or empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeError {
    /// Why, as far as a host can act on it.
    pub kind: ErrorKind,
    /// What was found and what was wanted.
    pub message: String,
    /// What the user can do; empty when there is nothing to advise.
    pub help: String,
    /// The errors beneath this one, outermost first.
    pub causes: Vec<String>,
}

impl NodeError {
    /// An error of any kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), help: String::new(), causes: Vec::new() }
    }

    /// An input has a value that the node cannot take.
    pub fn invalid_input(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    /// A file, a folder or a name does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// Two things do not fit together.
    pub fn incompatible(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Incompatible, message)
    }

    /// The host asked to stop.
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "cancelled")
    }

    /// Anything else.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// The same error with advice for the user.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// The same error with the error beneath it, and those beneath that.
    #[must_use]
    pub fn caused_by(mut self, cause: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(cause);
        while let Some(cause) = next {
            self.causes.push(cause.to_string());
            next = cause.source();
        }
        self
    }

    /// The same error with `place: ` before its message.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }
}

impl fmt::Display for NodeError {
    /// Message, causes and help, on one line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for cause in &self.causes {
            write!(f, "\n  because: {cause}")?;
        }
        if !self.help.is_empty() {
            write!(f, "\n  help: {}", self.help)?;
        }
        Ok(())
    }
}

impl std::error::Error for NodeError {}

/// Runs `body` and turns a panic into an error of kind [`Panicked`](ErrorKind::Panicked) that carries the panic's
/// message. `place` says what was running. `[any thread]`
pub fn catch_panic<T>(place: &str, body: impl FnOnce() -> Result<T, NodeError>) -> Result<T, NodeError> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(result) => result,
        Err(payload) => {
            let message = panic_message(payload.as_ref());
            // A payload whose own drop panics must not undo what was caught.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
            Err(NodeError::new(ErrorKind::Panicked, format!("{place} panicked: {message}"))
                .help("This is a bug in the plugin; please report it with this message. Other nodes are not affected."))
        }
    }
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_string()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a message".to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_message() {
        let error = catch_panic("node `X`", || -> Result<(), NodeError> { panic!("at {}", 7) }).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Panicked);
        assert_eq!(error.message, "node `X` panicked: at 7");
    }

    #[test]
    fn kinds_survive_their_numbers() {
        for kind in ErrorKind::ALL {
            assert_eq!(ErrorKind::from_code(kind.code()), kind);
        }
        assert_eq!(ErrorKind::from_code(999), ErrorKind::Internal);
    }

    #[test]
    fn causes_and_help_are_printed() {
        let cause = std::io::Error::other("disk on fire");
        let error =
            NodeError::not_found("no file `a`").caused_by(&cause).help("Look again.").at("Load Embedding");
        assert_eq!(
            error.to_string(),
            "Load Embedding: no file `a`\n  because: disk on fire\n  help: Look again."
        );
    }
}
