//! The graph that made a picture, as ComfyUI keeps it in PNG files: text chunks `prompt`, `workflow` and so on.

use serde_json::Value as Json;
use vocable_host_sdk::abi::{HostContext, Inputs};

/// Keyword and JSON for each text chunk, from the hidden inputs `prompt` and `extra_pnginfo`, or from the host where a graph
/// runner does not fill them in. ASCII only, which every reader of PNG understands.
pub(crate) fn graph_texts(inputs: &Inputs, host: &HostContext<'_>) -> Vec<(String, String)> {
    let hidden = |name: &str, from_host: String| match inputs.get(name) {
        Some(value) => value.as_str().map_or_else(|| value.to_json().to_string(), str::to_string),
        None => from_host,
    };
    let mut texts = Vec::new();
    let prompt = hidden("prompt", host.prompt_json());
    if serde_json::from_str::<Json>(&prompt).is_ok() {
        texts.push(("prompt".to_string(), ascii(&prompt)));
    }
    if let Ok(Json::Object(extra)) = serde_json::from_str(&hidden("extra_pnginfo", host.extra_pnginfo_json()))
    {
        let fits =
            |keyword: &str| (1..80).contains(&keyword.len()) && keyword.is_ascii() && keyword != "prompt";
        let extra = extra.into_iter().filter(|(keyword, _)| fits(keyword));
        texts.extend(extra.map(|(keyword, json)| (keyword, ascii(&json.to_string()))));
    }
    texts
}

/// JSON in which letters beyond ASCII are written as `\u` escapes; outside of strings JSON has none.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        if letter.is_ascii() {
            text.push(letter);
        } else {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use vocable_host_sdk::abi::SilentHost;

    use super::*;

    #[test]
    fn letters_beyond_ascii_are_escaped() {
        assert_eq!(ascii("{\"a\":\"ü😀\"}"), "{\"a\":\"\\u00fc\\ud83d\\ude00\"}");
    }

    #[test]
    fn chunks_come_from_hidden_inputs() {
        let host = SilentHost::default();
        let texts = |inputs: Inputs| graph_texts(&inputs, &HostContext::new(&host));
        let inputs =
            Inputs::new().with("prompt", "{\"3\":{}}").with("extra_pnginfo", "{\"workflow\":{\"nodes\":[]}}");
        let wanted = [("prompt", "{\"3\":{}}"), ("workflow", "{\"nodes\":[]}")];
        assert_eq!(texts(inputs), wanted.map(|(keyword, text)| (keyword.to_string(), text.to_string())));
        assert_eq!(texts(Inputs::new()), []);
        assert_eq!(texts(Inputs::new().with("prompt", "").with("extra_pnginfo", "[1]")), []);
    }
}
