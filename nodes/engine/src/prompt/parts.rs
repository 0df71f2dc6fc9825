//! Cutting a weighted part into text and embeddings, by ComfyUI's rules for `embedding:`.

/// Knows which embedding files there are.
pub trait EmbeddingLookup {
    /// How many vectors the embedding of that name has (1 or more), or `None` when there is no such file.
    fn vectors(&mut self, name: &str) -> Option<usize>;
}

impl<F: FnMut(&str) -> Option<usize>> EmbeddingLookup for F {
    fn vectors(&mut self, name: &str) -> Option<usize> {
        self(name)
    }
}

impl EmbeddingLookup for std::collections::BTreeMap<String, usize> {
    fn vectors(&mut self, name: &str) -> Option<usize> {
        self.get(name).copied()
    }
}

/// A stretch of a weighted part.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    Embedding { name: String, vectors: usize },
    Missing(String),
}

/// What stands before the name of an embedding file.
pub(super) const KEYWORD: &str = "embedding:";

/// The keyword counts at the beginning of a weighted part and after white space; it is lower case.
pub(super) fn cut(text: &str, lookup: &mut dyn EmbeddingLookup) -> Vec<Part> {
    let mut out = Vec::new();
    for piece in split_before_keyword(text) {
        match piece.strip_prefix(KEYWORD) {
            Some(rest) => embedding(rest, lookup, &mut out),
            None => out.push(Part::Text(piece.to_owned())),
        }
    }
    out
}

fn split_before_keyword(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut start = 0;
    for (at, _) in text.match_indices(KEYWORD) {
        if at > start && text[..at].ends_with(char::is_whitespace) {
            out.push(&text[start..at]);
            start = at;
        }
    }
    if start < text.len() {
        out.push(&text[start..]);
    }
    out
}

/// What follows the keyword: a name up to white space, `<` or `[`; if there is no such file, the name without commas around it. The rest is text.
fn embedding(rest: &str, lookup: &mut dyn EmbeddingLookup, out: &mut Vec<Part>) {
    let mut words = rest.split_whitespace();
    // ComfyUI fails at a keyword without a name; here it is text.
    let Some(mut name) = words.next() else {
        out.push(Part::Text(format!("{KEYWORD}{rest}")));
        return;
    };
    let mut leftover = words.collect::<Vec<_>>().join(" ");
    if let Some(at) = name.find(['<', '[']) {
        let cut_off = &name[at..];
        leftover = if leftover.is_empty() { cut_off.to_owned() } else { format!("{cut_off} {leftover}") };
        name = &name[..at];
    }
    let mut found = lookup.vectors(name);
    let stripped = name.trim_matches(',');
    if found.is_none() && stripped.len() < name.len() {
        found = lookup.vectors(stripped);
        leftover = format!("{} {leftover}", &name[stripped.len()..]);
        name = stripped;
    }
    out.push(match found {
        Some(vectors) => Part::Embedding { name: name.to_owned(), vectors },
        None => Part::Missing(name.to_owned()),
    });
    if !leftover.is_empty() {
        out.push(Part::Text(leftover));
    }
}
