//! What a host says of itself with each job, and what a node sees of it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Map, Value as Json};
use vocable_host_sdk::abi::{Folders, Host, Level, NodeError, PreviewImage};

use super::job::Shared;

/// The fields of `host_json`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    pub(super) folders: Folders,
    pub(super) node_id: String,
    pub(super) prompt_json: String,
    pub(super) extra_pnginfo_json: String,
    pub(super) threads: usize,
    pub(super) linked: BTreeSet<String>,
}

const FIELDS: [&str; 6] = ["folders", "node_id", "prompt", "extra_pnginfo", "threads", "linked"];

impl Settings {
    /// Reads `host_json`. Errors name the field.
    pub(super) fn parse(host_json: &str) -> Result<Self, NodeError> {
        let json: Json = serde_json::from_str(host_json).map_err(|error| {
            NodeError::invalid_input("argument `host_json` is not JSON").caused_by(&error)
        })?;
        let fields = object(&json, "")?;
        if let Some(name) = fields.keys().find(|name| !FIELDS.contains(&name.as_str())) {
            return Err(NodeError::invalid_input(format!(
                "field `{name}` of `host_json` is not known, only {}",
                FIELDS.join(", ")
            )));
        }
        let field = |name: &str| fields.get(name).filter(|value| !value.is_null());
        let mut folders = Folders::new();
        if let Some(json) = field("folders") {
            for (kind, paths) in object(json, "folders")? {
                for path in texts(paths, &format!("folders.{kind}"))? {
                    folders.add(kind, path);
                }
            }
        }
        let whole = |name: &'static str| {
            field(name).map_or(Ok(String::new()), |json| object(json, name).map(|_| json.to_string()))
        };
        Ok(Self {
            folders,
            node_id: match field("node_id") {
                None => String::new(),
                Some(json) => text(json, "node_id")?.to_string(),
            },
            prompt_json: whole("prompt")?,
            extra_pnginfo_json: whole("extra_pnginfo")?,
            threads: match field("threads").map(|json| threads(json).ok_or(json)) {
                None | Some(Ok(0)) => std::thread::available_parallelism().map_or(1, usize::from),
                Some(Ok(count)) => count,
                Some(Err(json)) => return Err(wrong("threads", "a whole number from 0 to 4096", json)),
            },
            linked: match field("linked") {
                None => BTreeSet::new(),
                Some(json) => texts(json, "linked")?.map(str::to_string).collect(),
            },
        })
    }
}

fn object<'a>(json: &'a Json, field: &str) -> Result<&'a Map<String, Json>, NodeError> {
    json.as_object().ok_or_else(|| wrong(field, "an object", json))
}

fn text<'a>(json: &'a Json, field: &str) -> Result<&'a str, NodeError> {
    json.as_str().ok_or_else(|| wrong(field, "text", json))
}

fn texts<'a>(json: &'a Json, field: &str) -> Result<impl Iterator<Item = &'a str>, NodeError> {
    let items = json.as_array().ok_or_else(|| wrong(field, "a list of texts", json))?;
    let items = items.iter().enumerate().map(|(index, item)| text(item, &format!("{field}[{index}]")));
    Ok(items.collect::<Result<Vec<_>, _>>()?.into_iter())
}

/// More threads than any machine has would be an error of another unit.
fn threads(json: &Json) -> Option<usize> {
    json.as_u64().filter(|count| *count <= 4096).map(|count| count as usize)
}

fn wrong(field: &str, wanted: &str, found: &Json) -> NodeError {
    let place = match field {
        "" => "`host_json`".to_string(),
        field => format!("field `{field}` of `host_json`"),
    };
    let found = match found {
        Json::Array(_) => "a list".to_string(),
        Json::Object(_) => "an object".to_string(),
        short => short.to_string(),
    };
    NodeError::invalid_input(format!("{place} should be {wanted}, found {found}"))
}

/// The host of one call; what the node says goes to the job, if there is one.
pub(super) struct JobHost<'a> {
    pub(super) settings: &'a Settings,
    pub(super) job: Option<&'a Shared>,
}

impl Host for JobHost<'_> {
    fn progress(&self, step: u64, total: u64, preview: Option<&PreviewImage>) {
        if let Some(job) = self.job {
            job.say(|queue| queue.progress(step, total, preview));
        }
    }
    fn status(&self, text: &str) {
        if let Some(job) = self.job {
            job.say(|queue| queue.status(text));
        }
    }
    fn is_cancelled(&self) -> bool {
        self.job.is_some_and(Shared::is_cancelled)
    }
    fn log(&self, level: Level, text: &str) {
        if let Some(job) = self.job {
            job.say(|queue| queue.log(level, text));
        }
    }
    fn folders(&self, kind: &str) -> Vec<PathBuf> {
        self.settings.folders.paths(kind).to_vec()
    }
    fn node_id(&self) -> String {
        self.settings.node_id.clone()
    }
    fn prompt_json(&self) -> String {
        self.settings.prompt_json.clone()
    }
    fn extra_pnginfo_json(&self) -> String {
        self.settings.extra_pnginfo_json.clone()
    }
    fn threads(&self) -> usize {
        self.settings.threads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_read_and_may_be_left_out() {
        let all = r#"{"folders": {"input": ["a", "b"]}, "node_id": "3", "prompt": {"z": {}, "a": 1}, "extra_pnginfo": {"w": 1},
            "threads": 2, "linked": ["clip", "vae"]}"#;
        let settings = Settings::parse(all).unwrap();
        assert_eq!(settings.folders, Folders::new().with("input", "a").with("input", "b"));
        assert_eq!((settings.node_id.as_str(), settings.threads), ("3", 2));
        assert_eq!(settings.prompt_json, r#"{"z":{},"a":1}"#, "the order stays");
        assert_eq!(settings.extra_pnginfo_json, r#"{"w":1}"#);
        assert!(settings.linked.contains("clip") && settings.linked.len() == 2);
        let none = Settings::parse("{}").unwrap();
        assert!(none.threads >= 1 && none.prompt_json.is_empty());
        assert_eq!(Settings::parse(r#"{"threads": 0, "prompt": null}"#).unwrap(), none);
    }

    #[test]
    fn a_wrong_type_names_its_field() {
        for (json, wanted) in [
            ("[]", "`host_json` should be an object, found a list"),
            ("{", "`host_json` is not JSON"),
            (r#"{"folders": []}"#, "field `folders` of `host_json` should be an object"),
            (
                r#"{"folders": {"input": "a"}}"#,
                "field `folders.input` of `host_json` should be a list of texts, found \"a\"",
            ),
            (
                r#"{"folders": {"input": ["a", 3]}}"#,
                "field `folders.input[1]` of `host_json` should be text, found 3",
            ),
            (r#"{"node_id": 3}"#, "field `node_id`"),
            (r#"{"prompt": "{}"}"#, "field `prompt` of `host_json` should be an object"),
            (r#"{"extra_pnginfo": 1.5}"#, "field `extra_pnginfo`"),
            (
                r#"{"threads": -1}"#,
                "field `threads` of `host_json` should be a whole number from 0 to 4096, found -1",
            ),
            (r#"{"threads": true}"#, "found true"),
            (r#"{"linked": [null]}"#, "field `linked[0]`"),
            (r#"{"folder": {}}"#, "field `folder` of `host_json` is not known, only folders, node_id"),
        ] {
            let message = Settings::parse(json).unwrap_err().message;
            assert!(message.contains(wanted), "{json}: {message}");
        }
    }
}
