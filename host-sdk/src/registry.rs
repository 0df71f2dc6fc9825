//! The nodes of a host, by id.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::abi::{Folders, Node, NodeSpec, SpecProblem};
use crate::loader::LoadedPlugin;

/// Where a node comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A plugin's file.
    Plugin {
        /// The plugin's name.
        name: String,
        /// The plugin's version.
        version: String,
        /// The file.
        path: PathBuf,
    },
    /// The host program itself, under a name that the host chose.
    Native(String),
}

impl Origin {
    /// What `/object_info` tells the front end: `custom_nodes.vocable`, or `nodes` for the host's own.
    pub fn python_module(&self) -> String {
        match self {
            Self::Plugin { name, .. } => format!("custom_nodes.{name}"),
            Self::Native(_) => "nodes".to_string(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plugin { name, version, path } => write!(f, "plugin {name} {version} ({})", path.display()),
            Self::Native(name) => write!(f, "the host's {name}"),
        }
    }
}

/// A node type and where it comes from.
#[derive(Clone)]
pub struct Registered {
    /// The node; one object for every use.
    pub node: Arc<dyn Node>,
    /// Where it comes from.
    pub origin: Origin,
}

/// Why nodes could not be registered. Nothing of that plugin was.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// Two nodes have the same id.
    #[error("node `{id}` is in {first} and again in {second}\n  help: Load only one of the two.")]
    Duplicate {
        /// The id.
        id: String,
        /// Who was there first.
        first: Box<Origin>,
        /// Who came second.
        second: Box<Origin>,
    },
    /// A node's description contradicts itself.
    #[error("{origin} has an unsound node: {problem}")]
    Unsound {
        /// Whose node.
        origin: Box<Origin>,
        /// The first contradiction.
        problem: SpecProblem,
    },
}

/// The nodes of a host. Filled first, then shared.
#[derive(Default)]
pub struct Registry {
    nodes: BTreeMap<String, Registered>,
    plugins: Vec<LoadedPlugin>,
}

impl Registry {
    /// No nodes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds all nodes of a plugin, or none.
    pub fn register_plugin(&mut self, plugin: LoadedPlugin) -> Result<(), RegistryError> {
        let origin = Origin::Plugin {
            name: plugin.info().name.clone(),
            version: plugin.info().version.clone(),
            path: plugin.path().to_path_buf(),
        };
        self.register(origin, plugin.plugin().nodes())?;
        self.plugins.push(plugin);
        Ok(())
    }

    /// Adds nodes of the host program, all or none. `name` stands in messages.
    pub fn register_native(
        &mut self,
        name: &str,
        nodes: impl IntoIterator<Item = Arc<dyn Node>>,
    ) -> Result<(), RegistryError> {
        self.register(Origin::Native(name.to_string()), nodes)
    }

    fn register(
        &mut self,
        origin: Origin,
        nodes: impl IntoIterator<Item = Arc<dyn Node>>,
    ) -> Result<(), RegistryError> {
        let mut added = BTreeMap::new();
        for node in nodes {
            let spec = node.spec();
            if let Some(problem) = spec.problems().into_iter().next() {
                return Err(RegistryError::Unsound { origin: Box::new(origin), problem });
            }
            let first = self.nodes.get(&spec.id).or_else(|| added.get(&spec.id));
            if let Some(Registered { origin: first, .. }) = first {
                let (first, second) = (Box::new(first.clone()), Box::new(origin));
                return Err(RegistryError::Duplicate { id: spec.id, first, second });
            }
            added.insert(spec.id, Registered { node, origin: origin.clone() });
        }
        self.nodes.append(&mut added);
        Ok(())
    }

    /// The node type of that id.
    pub fn get(&self, id: &str) -> Option<&Registered> {
        self.nodes.get(id)
    }

    /// All node types, sorted by id.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Registered)> {
        self.nodes.iter().map(|(id, registered)| (id.as_str(), registered))
    }

    /// The specs of all node types, sorted by id, asked for anew.
    pub fn specs(&self) -> Vec<NodeSpec> {
        self.nodes.values().map(|registered| registered.node.spec()).collect()
    }

    /// The plugins, in the order in which they were registered.
    pub fn plugins(&self) -> &[LoadedPlugin] {
        &self.plugins
    }

    /// The id that is most like `id`, for "did you mean".
    pub fn suggest(&self, id: &str) -> Option<&str> {
        let wanted = id.to_lowercase();
        self.nodes
            .keys()
            .map(|known| (distance(&wanted, &known.to_lowercase()), known.as_str()))
            .filter(|(distance, known)| *distance <= known.len().max(3) / 3)
            .min()
            .map(|(_, known)| known)
    }

    /// What to tell who asked for an id that is not there.
    pub(crate) fn hint(&self, id: &str) -> String {
        match self.suggest(id) {
            Some(known) => format!("Did you mean '{known}'?"),
            None => "The plugin that has it may not be loaded.".to_string(),
        }
    }

    /// What ComfyUI's `/object_info` answers: every node by id, lists of files looked up now.
    pub fn object_info(&self, folders: &Folders) -> Json {
        let entry = |(id, registered): (&String, &Registered)| {
            (id.clone(), registered.node.spec().object_info(folders, &registered.origin.python_module()))
        };
        Json::Object(self.nodes.iter().map(entry).collect::<Map<_, _>>())
    }
}

/// Letters to change, add or remove until `a` is `b` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, other) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{HostContext, InputSpec, Inputs, NodeError, Outputs};

    struct Named(NodeSpec);

    impl Node for Named {
        fn spec(&self) -> NodeSpec {
            self.0.clone()
        }
        fn execute(&self, _inputs: Inputs, _host: &HostContext<'_>) -> Result<Outputs, NodeError> {
            Ok(Outputs::new())
        }
    }

    fn node(id: &str) -> Arc<dyn Node> {
        Arc::new(Named(NodeSpec::new(id, id)))
    }

    #[test]
    fn a_second_node_of_that_id_is_refused_with_both_origins() {
        let mut registry = Registry::new();
        registry.register_native("first pack", [node("A")]).unwrap();
        let error = registry.register_native("second pack", [node("B"), node("A")]).unwrap_err().to_string();
        assert!(
            error.contains("`A`") && error.contains("first pack") && error.contains("second pack"),
            "{error}"
        );
        assert!(registry.get("B").is_none(), "all or nothing");
        assert!(registry.register_native("twice", [node("C"), node("C")]).is_err());
    }

    #[test]
    fn an_unsound_node_is_refused() {
        let unsound: Arc<dyn Node> =
            Arc::new(Named(NodeSpec::new("A", "A").input(InputSpec::int("x").default(0.5))));
        assert!(matches!(
            Registry::new().register_native("x", [unsound]),
            Err(RegistryError::Unsound { .. })
        ));
    }

    #[test]
    fn nodes_are_listed_and_suggested() {
        let mut registry = Registry::new();
        registry.register_native("pack", [node("KSampler"), node("VAEDecode")]).unwrap();
        assert_eq!(registry.suggest("Ksampler"), Some("KSampler"));
        assert_eq!(registry.suggest("SomethingElse"), None);
        assert_eq!(registry.object_info(&Folders::new())["VAEDecode"]["python_module"], "nodes");
    }
}
