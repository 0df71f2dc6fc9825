//! What a node answers.

use serde_json::{Map, Value as Json, json};

use super::Value;

/// One value for each output of the spec, and what the front end shows.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    /// One value for each output, in the order of the slots; a [`Value::List`] where the output is a list.
    pub results: Vec<Value>,
    /// A JSON object whose values are arrays, such as `{"images": [{"filename": …, "subfolder": …, "type": "output"}]}`.
    pub ui: Option<String>,
}

impl Outputs {
    /// No results yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One result.
    pub fn one(value: impl Into<Value>) -> Self {
        Self::new().result(value)
    }

    /// One more result.
    #[must_use]
    pub fn result(mut self, value: impl Into<Value>) -> Self {
        self.results.push(value.into());
        self
    }

    /// Shows text.
    #[must_use]
    pub fn ui_text(self, text: impl Into<String>) -> Self {
        self.ui_entry("text", Json::String(text.into()))
    }

    /// Shows a picture that was written into the folder of `kind` (`output`, `temp` or `input`).
    #[must_use]
    pub fn ui_image(self, filename: &str, subfolder: &str, kind: &str) -> Self {
        self.ui_entry("images", json!({"filename": filename, "subfolder": subfolder, "type": kind}))
    }

    /// Appends an entry to the array of that key in [`ui`](Self::ui).
    #[must_use]
    pub fn ui_entry(mut self, key: &str, entry: Json) -> Self {
        let mut ui: Map<String, Json> =
            self.ui.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        match ui.entry(key).or_insert_with(|| json!([])) {
            Json::Array(entries) => entries.push(entry),
            other => *other = json!([entry]),
        }
        self.ui = Some(Json::Object(ui).to_string());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ui_entries_are_gathered_by_key() {
        let outputs =
            Outputs::one(1).ui_image("a.png", "", "temp").ui_text("x").ui_image("b.png", "", "temp");
        let ui: Json = serde_json::from_str(&outputs.ui.unwrap()).unwrap();
        assert_eq!(ui["images"][1]["filename"], "b.png");
        assert_eq!(ui["text"], json!(["x"]));
    }
}
