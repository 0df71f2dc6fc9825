//! Concepts from files.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::picture::{Colours, Picture, decode};
use super::{CaptionSource, Concept, ConceptOptions, captions};
use crate::{CancelToken, Error, Result};

/// Files that belong to pictures or to the system and are no pictures.
const BESIDE: [&str; 6] = ["txt", "json", "caption", "csv", "md", "ini"];
/// A picture file larger than this is none that a concept needs.
const LARGEST_FILE: u64 = 512 << 20;

impl Concept {
    /// All pictures of a folder, in the order of their names; folders in it, hidden files and texts are left out.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) when the folder does not exist, and those of [`Concept::load_files`].
    pub fn load_folder(folder: &Path, options: &ConceptOptions, cancel: &CancelToken) -> Result<Self> {
        let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
            .map_err(|e| Error::io(folder, &e))?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.is_file() && !is_beside(path))
            .collect();
        files.sort();
        if files.is_empty() {
            return Err(Error::not_found(format!("{}: no pictures in the folder", folder.display()))
                .help("put PNG, JPEG or WebP files into it"));
        }
        Self::load_files(&files, options, cancel).map_err(|e| match e.kind {
            crate::ErrorKind::Cancelled => e,
            _ => e.context(folder.display()),
        })
    }

    /// The given picture files, in the given order.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for options out of range; [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) when no file can be used (all are named, with
    /// the reason); [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
    pub fn load_files(files: &[PathBuf], options: &ConceptOptions, cancel: &CancelToken) -> Result<Self> {
        options.check()?;
        let mut builder = Builder::new(options)?;
        for path in files {
            cancel.check()?;
            let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
            let read = read_file(path).and_then(|bytes| {
                let (colours, weight) = decode(&bytes, options.alpha_as_weight)?;
                Ok((bytes, Colours::Bytes(colours), weight))
            });
            let (bytes, colours, weight) = match read {
                Ok(parts) => parts,
                Err(reason) => {
                    builder.problems.push(format!("{name}: {reason}"));
                    continue;
                }
            };
            let caption = match options.captions {
                CaptionSource::Templates => None,
                CaptionSource::Sidecar => captions::sidecar(path),
                CaptionSource::FileName => captions::caption_of_file_name(&name),
            };
            builder.add(&Picture { name, caption, colours, weight }, &[&bytes])?;
        }
        match options.captions {
            CaptionSource::Templates => {}
            CaptionSource::Sidecar => builder.tell_captionless("no .txt with a caption in it"),
            CaptionSource::FileName => builder.tell_captionless("no caption in the file name"),
        }
        builder.finish()
    }
}

fn is_beside(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|n| n.to_string_lossy().starts_with('.'));
    let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    hidden || extension.is_some_and(|e| BESIDE.contains(&e.as_str()))
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let size = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if size > LARGEST_FILE {
        return Err(format!("{size} bytes are too many for a picture"));
    }
    std::fs::read(path).map_err(|e| e.to_string())
}

/// Collects items and hashes all that decided them.
pub(super) struct Builder<'a> {
    options: &'a ConceptOptions,
    items: Vec<super::ConceptItem>,
    pub(super) problems: Vec<String>,
    remarks: Vec<String>,
    /// Pictures that were kept, and how many of them have no caption.
    pictures: usize,
    captionless: usize,
    hash: Sha256,
}

impl<'a> Builder<'a> {
    pub(super) fn new(options: &'a ConceptOptions) -> Result<Self> {
        let text = serde_json::to_vec(options)
            .map_err(|e| Error::new(crate::ErrorKind::Internal, format!("concept options: {e}")))?;
        let mut hash = Sha256::new();
        part(&mut hash, b"vocable concept 1");
        part(&mut hash, &text);
        let (items, problems, remarks) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { options, items, problems, remarks, pictures: 0, captionless: 0, hash })
    }

    pub(super) fn add(&mut self, picture: &Picture, contents: &[&[u8]]) -> Result<()> {
        part(&mut self.hash, picture.name.as_bytes());
        part(&mut self.hash, picture.caption.as_deref().unwrap_or("").as_bytes());
        for bytes in contents {
            part(&mut self.hash, bytes);
        }
        self.pictures += 1;
        self.captionless += usize::from(picture.caption.is_none());
        self.items.extend(picture.items(self.options)?);
        Ok(())
    }

    /// Captions were asked for: how many pictures have none, and what is done instead.
    pub(super) fn tell_captionless(&mut self, what: &str) {
        if self.captionless > 0 {
            let have = if self.captionless == 1 { "has" } else { "have" };
            self.remarks.push(format!(
                "{} of {} pictures {have} {what}: templates are used",
                self.captionless, self.pictures
            ));
        }
    }

    pub(super) fn finish(self) -> Result<Concept> {
        if self.items.is_empty() {
            let why =
                if self.problems.is_empty() { "none was given".to_owned() } else { self.problems.join("; ") };
            return Err(Error::incompatible(format!("no usable picture: {why}"))
                .help("give a few PNG, JPEG or WebP pictures of the subject"));
        }
        let fingerprint = self.hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        Ok(Concept { items: self.items, problems: self.problems, remarks: self.remarks, fingerprint })
    }
}

/// With its length before it, so that no two lists of parts hash alike.
fn part(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}
