//! Learned words that a prompt uses.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::SystemTime;

use serde_json::Value as Json;
use vocable_host_sdk::abi::{Folders, folder};

/// No embedding's header is longer.
const LONGEST_HEADER: u64 = 1 << 20;

/// A learned word and its file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Word {
    /// As it stands in prompts.
    pub(crate) word: String,
    /// The file's name among the embeddings.
    pub(crate) file: String,
    saved: Option<SystemTime>,
}

/// The words of saved embeddings. Of several files with one word the newest counts.
pub(crate) fn saved(folders: &Folders) -> Vec<Word> {
    let mut found: Vec<Word> = Vec::new();
    for file in folders.files(folder::EMBEDDINGS, &["safetensors".to_string()]) {
        let Some(path) = folders.find(folder::EMBEDDINGS, &file) else { continue };
        let Some(word) = word_of(&path) else { continue };
        let saved = path.metadata().and_then(|data| data.modified()).ok();
        match found.iter_mut().find(|other| other.word == word) {
            Some(other) if other.saved < saved => *other = Word { word, file, saved },
            Some(_) => {}
            None => found.push(Word { word, file, saved }),
        }
    }
    found
}

/// The words of saved embeddings that stand in one of the `texts`.
pub(crate) fn in_texts(folders: &Folders, texts: &[&str]) -> Vec<Word> {
    let stands = |word: &Word| texts.iter().any(|text| stands_in(text, &word.word));
    saved(folders).into_iter().filter(stands).collect()
}

/// What stands in angle brackets: almost surely meant to be a learned word.
pub(crate) fn in_brackets(text: &str) -> Vec<&str> {
    let is_name =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "_.-".contains(c));
    let mut words = Vec::new();
    for (at, _) in text.match_indices('<') {
        if let Some(length) = text[at + 1..].find('>')
            && is_name(&text[at + 1..at + 1 + length])
        {
            words.push(&text[at..at + length + 2]);
        }
    }
    words
}

/// The word that a file's header names.
fn word_of(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER {
        return None;
    }
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header).ok()?;
    let header: Json = serde_json::from_slice(&header).ok()?;
    let word = header.get("__metadata__")?.get("name")?.as_str()?;
    (!word.is_empty()).then(|| word.to_string())
}

/// Whether the word stands alone somewhere: letters, digits and `_` beside it would make it a part of another.
fn stands_in(text: &str, word: &str) -> bool {
    let glue = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].chars().next_back().is_some_and(glue)
            && !text[at + word.len()..].chars().next().is_some_and(glue)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn save(path: &Path, word: &str) {
        let header =
            format!(r#"{{"__metadata__": {{"name": "{word}"}}, "emb_params": {{"data_offsets": [0, 0]}}}}"#);
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn words_are_found_by_what_the_file_says() {
        let dir = tempfile::tempdir().unwrap();
        save(&dir.path().join("a.safetensors"), "<zorvo>");
        save(&dir.path().join("b.safetensors"), "cat");
        std::fs::write(dir.path().join("c.safetensors"), b"\xff\xff\xff\xff\xff\xff\xff\xff").unwrap();
        std::fs::write(dir.path().join("d.safetensors"), b"short").unwrap();
        let folders = Folders::new().with(folder::EMBEDDINGS, dir.path());
        let files = |text: &str| -> Vec<String> {
            in_texts(&folders, &[text]).into_iter().map(|word| word.file).collect()
        };
        assert_eq!(files("a photo of a <zorvo>, red"), ["a.safetensors"]);
        assert_eq!(files("a cat and a <zorvo>"), ["a.safetensors", "b.safetensors"]);
        assert!(files("concatenate cats").is_empty());
        assert_eq!(saved(&folders).len(), 2);
    }

    #[test]
    fn brackets_hold_one_word() {
        assert_eq!(in_brackets("a <mibet> beside <my-cat>, x<y>"), ["<mibet>", "<my-cat>", "<y>"]);
        assert!(in_brackets("i <3 you > me, a < b, <>, <two words>, <open").is_empty());
    }

    #[test]
    fn of_two_files_the_newer_counts() {
        let dir = tempfile::tempdir().unwrap();
        for (name, seconds) in [("x-2", 200), ("x", 100)] {
            let path = dir.path().join(format!("{name}.safetensors"));
            save(&path, "x");
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        }
        let folders = Folders::new().with(folder::EMBEDDINGS, dir.path());
        let found = in_texts(&folders, &["an x"]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].file, "x-2.safetensors");
    }
}
