//! Results that need not be computed again: by class, literal inputs, fingerprint and the signatures of all ancestors.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use crate::abi::Value;

/// Everything a node's result depends on, as a hash.
pub(crate) type Signature = [u8; 32];

/// A node's results.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) outputs: Vec<Vec<Value>>,
    pub(crate) ui: Option<Json>,
}

/// Results by signature.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    entries: HashMap<Signature, Arc<Entry>>,
}

impl Cache {
    pub(crate) fn get(&self, signature: &Signature) -> Option<Arc<Entry>> {
        self.entries.get(signature).cloned()
    }

    pub(crate) fn insert(&mut self, signature: Signature, entry: Arc<Entry>) {
        self.entries.insert(signature, entry);
    }

    /// Drops what is not in `signatures`, so that memory holds one workflow's results and not a history.
    pub(crate) fn keep_only<'a>(&mut self, signatures: impl Iterator<Item = &'a Signature>) {
        let mut kept = HashMap::new();
        for signature in signatures {
            if let Some((signature, entry)) = self.entries.remove_entry(signature) {
                kept.insert(signature, entry);
            }
        }
        self.entries = kept;
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }
}

/// Hashes parts so that their borders count.
#[derive(Default)]
pub(crate) struct Signer(Sha256);

impl Signer {
    pub(crate) fn part(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let bytes = bytes.as_ref();
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    pub(crate) fn finish(self) -> Signature {
        self.0.finalize().into()
    }
}
