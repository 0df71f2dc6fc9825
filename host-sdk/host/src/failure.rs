//! Why a command did not do what it should, and what the process then exits with.

use std::fmt;

/// A failure with its message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A node failed.
    Node(String),
    /// The arguments or the workflow are wrong.
    Invalid(String),
    /// A plugin could not be loaded.
    Plugin(String),
    /// The user stopped the run.
    Cancelled(String),
}

impl Failure {
    /// The exit code, as `--help` documents it.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Node(_) => 1,
            Self::Invalid(_) => 2,
            Self::Plugin(_) => 3,
            Self::Cancelled(_) => 130,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Node(text) | Self::Invalid(text) | Self::Plugin(text) | Self::Cancelled(text)) = self;
        f.write_str(text)
    }
}
