//! File names that a prompt can spell.

use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// Check that `name` can stand after `embedding:` in a prompt: `[A-Za-z0-9_.-]+`, not beginning with `.` or `-`, at most 200 characters.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput), with a name that would do.
pub fn check_file_name(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if !name.is_empty() && name.len() <= 200 && !name.starts_with(['.', '-']) && name.chars().all(allowed) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{name:?} is no file name for an embedding: wanted letters a-z, digits, and _ . - only"
    ))
    .help(format!("for example {}", file_stem_for(name))))
}

/// A file stem for a word: `<my-cat>` → `my-cat`. Characters that a prompt cannot spell become `-`; where letters are lost that way, eight digits of the
/// word's SHA-256 keep two words from sharing one file.
pub fn file_stem_for(word: &str) -> String {
    let mut stem = String::new();
    for c in word.chars() {
        let c = if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '-' };
        if !(c == '-' && stem.ends_with('-')) {
            stem.push(c);
        }
    }
    let mut stem: String = stem.trim_matches(['-', '.']).chars().take(100).collect();
    let lost = stem.is_empty()
        || word.chars().count() > 100
        || word.chars().any(|c| c.is_alphanumeric() && !c.is_ascii());
    if lost {
        let hash = Sha256::digest(word.as_bytes());
        let digits: String = hash.iter().take(4).map(|b| format!("{b:02x}")).collect();
        stem = if stem.is_empty() { format!("word-{digits}") } else { format!("{stem}-{digits}") };
    }
    stem
}
