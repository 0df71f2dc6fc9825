//! How a node describes one of its inputs.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::Folders;

/// Whether an input must be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// Must be linked or given.
    #[default]
    Required,
    /// May be left out; its default is filled in if it has one.
    Optional,
    /// Not shown; the host fills it: type `PROMPT`, `EXTRA_PNGINFO` or `UNIQUE_ID`, each as text.
    Hidden,
}

/// What the user may choose from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choices {
    /// Always the same.
    Fixed(Vec<String>),
    /// The files of a kind of folder, looked up anew at each listing and each validation.
    Files {
        /// Kind of folder, see [`folder`](super::folder).
        kind: String,
        /// As in [`Folders::files`].
        extensions: Vec<String>,
        /// Whether the path of something that exists is accepted beside the list: an absolute one, or one from the host's
        /// [base](Folders::with_base). The node gets it absolute.
        accepts_paths: bool,
    },
}

impl Choices {
    /// What can be chosen now.
    pub fn list(&self, folders: &Folders) -> Vec<String> {
        match self {
            Self::Fixed(options) => options.clone(),
            Self::Files { kind, extensions, .. } => folders.files(kind, extensions),
        }
    }
}

/// One input of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InputSpec {
    /// The name, unique in its node and unchanging: users' saved graphs hold it.
    pub name: String,
    /// Type of the socket: `INT`, `FLOAT`, `STRING`, `BOOLEAN`, `COMBO`, or any other, such as `IMAGE`, which needs a link. Several stand with
    /// commas, `*` is any.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Whether it must be there.
    pub presence: Presence,
    /// What the widget starts with.
    pub default: Option<Json>,
    /// Smallest number.
    pub min: Option<Json>,
    /// Largest number.
    pub max: Option<Json>,
    /// Step of the widget.
    pub step: Option<Json>,
    /// The widget rounds to multiples of this.
    pub round: Option<Json>,
    /// What the user may choose from, for type `COMBO`.
    pub choices: Option<Choices>,
    /// Text of several lines.
    pub multiline: bool,
    /// In the text `{a|b}` means one of both; the front end chooses before it queues.
    pub dynamic_prompts: bool,
    /// Shown when the pointer rests on it.
    pub tooltip: String,
    /// Folded away until asked for.
    pub advanced: bool,
    /// The front end offers to change the value after each run (for seeds).
    pub control_after_generate: bool,
    /// The front end offers to upload a picture into the input folder.
    pub image_upload: bool,
    /// Shown as a socket and not as a widget.
    pub force_input: bool,
}

impl Default for InputSpec {
    fn default() -> Self {
        Self::new("", "*")
    }
}

impl InputSpec {
    /// An input of any type; for links: `InputSpec::new("model", "MODEL")`.
    pub fn new(name: impl Into<String>, type_name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            type_name: type_name.into(),
            presence: Presence::Required,
            default: None,
            min: None,
            max: None,
            step: None,
            round: None,
            choices: None,
            multiline: false,
            dynamic_prompts: false,
            tooltip: String::new(),
            advanced: false,
            control_after_generate: false,
            image_upload: false,
            force_input: false,
        }
    }

    /// A whole number.
    pub fn int(name: impl Into<String>) -> Self {
        Self::new(name, "INT")
    }

    /// A seed: 0 to 18446744073709551615, starting with 0, with the front end's control after each run.
    pub fn seed(name: impl Into<String>) -> Self {
        let mut seed = Self::int(name).default(0).range(0, u64::MAX);
        seed.control_after_generate = true;
        seed
    }

    /// A number.
    pub fn float(name: impl Into<String>) -> Self {
        Self::new(name, "FLOAT")
    }

    /// Text.
    pub fn string(name: impl Into<String>) -> Self {
        Self::new(name, "STRING")
    }

    /// A switch.
    pub fn boolean(name: impl Into<String>) -> Self {
        Self::new(name, "BOOLEAN")
    }

    /// A choice from a fixed list; it starts with the first.
    pub fn combo<T: Into<String>>(name: impl Into<String>, options: impl IntoIterator<Item = T>) -> Self {
        let mut combo = Self::new(name, "COMBO");
        combo.choices = Some(Choices::Fixed(options.into_iter().map(Into::into).collect()));
        combo
    }

    /// A choice from the files of a kind of folder, looked up anew at each listing; `extensions` as in [`Folders::files`].
    pub fn files<T: Into<String>>(
        name: impl Into<String>,
        kind: impl Into<String>,
        extensions: impl IntoIterator<Item = T>,
    ) -> Self {
        let mut combo = Self::new(name, "COMBO");
        let extensions = extensions.into_iter().map(Into::into).collect();
        combo.choices = Some(Choices::Files { kind: kind.into(), extensions, accepts_paths: false });
        combo
    }

    /// A value that the host fills in: `PROMPT`, `EXTRA_PNGINFO` or `UNIQUE_ID`.
    pub fn hidden(name: impl Into<String>, type_name: impl Into<String>) -> Self {
        let mut hidden = Self::new(name, type_name);
        hidden.presence = Presence::Hidden;
        hidden
    }

    /// May be left out.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.presence = Presence::Optional;
        self
    }

    /// What the widget starts with.
    #[must_use]
    pub fn default(mut self, value: impl Into<Json>) -> Self {
        self.default = Some(value.into());
        self
    }

    /// Smallest and largest number.
    #[must_use]
    pub fn range(self, min: impl Into<Json>, max: impl Into<Json>) -> Self {
        self.min(min).max(max)
    }

    /// Smallest number.
    #[must_use]
    pub fn min(mut self, min: impl Into<Json>) -> Self {
        self.min = Some(min.into());
        self
    }

    /// Largest number.
    #[must_use]
    pub fn max(mut self, max: impl Into<Json>) -> Self {
        self.max = Some(max.into());
        self
    }

    /// Step of the widget.
    #[must_use]
    pub fn step(mut self, step: impl Into<Json>) -> Self {
        self.step = Some(step.into());
        self
    }

    /// The widget rounds to multiples of this.
    #[must_use]
    pub fn round(mut self, round: impl Into<Json>) -> Self {
        self.round = Some(round.into());
        self
    }

    /// Text of several lines.
    #[must_use]
    pub fn multiline(mut self) -> Self {
        self.multiline = true;
        self
    }

    /// In the text `{a|b}` means one of both; the front end chooses before it queues.
    #[must_use]
    pub fn dynamic_prompts(mut self) -> Self {
        self.dynamic_prompts = true;
        self
    }

    /// Shown when the pointer rests on it.
    #[must_use]
    pub fn tooltip(mut self, text: impl Into<String>) -> Self {
        self.tooltip = text.into();
        self
    }

    /// Folded away until asked for.
    #[must_use]
    pub fn advanced(mut self) -> Self {
        self.advanced = true;
        self
    }

    /// The front end offers to change the value after each run.
    #[must_use]
    pub fn control_after_generate(mut self) -> Self {
        self.control_after_generate = true;
        self
    }

    /// The front end offers to upload a picture into the input folder.
    #[must_use]
    pub fn image_upload(mut self) -> Self {
        self.image_upload = true;
        self
    }

    /// Shown as a socket and not as a widget.
    #[must_use]
    pub fn force_input(mut self) -> Self {
        self.force_input = true;
        self
    }

    /// For [`files`](Self::files): the path of something that exists is accepted beside the list. The node gets it absolute.
    #[must_use]
    pub fn accepts_paths(mut self) -> Self {
        if let Some(Choices::Files { accepts_paths, .. }) = &mut self.choices {
            *accepts_paths = true;
        }
        self
    }

    /// Whether a workflow can hold a value for it: a number, text, a switch, a choice, or anything for `*`. Every other type needs a link.
    pub fn takes_literals(&self) -> bool {
        self.types().any(|name| name == "*" || is_written(name))
    }

    /// Whether it takes more than what can be written down: any type but a number, text, a switch and a choice.
    pub(crate) fn takes_objects(&self) -> bool {
        !self.types().all(is_written)
    }

    fn types(&self) -> impl Iterator<Item = &str> {
        self.type_name.split(',').map(str::trim)
    }
}

fn is_written(type_name: &str) -> bool {
    matches!(type_name, "INT" | "FLOAT" | "STRING" | "BOOLEAN" | "COMBO")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_written_down_takes_a_literal() {
        for name in ["INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "*", "INT,FLOAT", "MASK, INT"] {
            assert!(InputSpec::new("x", name).takes_literals(), "{name}");
        }
        for name in ["MODEL", "IMAGE", "TI_CONCEPT", "LOSS_MAP", "SOMEBODYS_OWN", "IMAGE,MASK"] {
            assert!(!InputSpec::new("x", name).takes_literals(), "{name}");
        }
    }
}
