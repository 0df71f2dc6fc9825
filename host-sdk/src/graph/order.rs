//! The order of a workflow's nodes: whatever a node links to comes before it.

use std::collections::{HashMap, HashSet};

use super::workflow::Workflow;

/// The nodes that some outputs need.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Ids, each after all that it links to (except inside a cycle).
    pub(super) nodes: Vec<String>,
    /// Cycles, each as the ids along it.
    pub(super) cycles: Vec<Vec<String>>,
}

/// Orders the ancestors of `outputs`, output by output, depth first. No recursion: a long chain must not exhaust the stack.
pub(super) fn order(workflow: &Workflow, outputs: &[String]) -> Order {
    let mut order = Order::default();
    let mut done: HashMap<&str, bool> = HashMap::new(); // false: on the path
    for output in outputs {
        let mut path: Vec<(&str, Vec<&str>)> = Vec::new();
        let mut next = Some(output.as_str());
        loop {
            if let Some(id) = next.take() {
                match done.get(id) {
                    Some(true) => {}
                    Some(false) => {
                        let start = path.iter().position(|(on_path, _)| *on_path == id).unwrap_or(0);
                        order.cycles.push(path[start..].iter().map(|(id, _)| (*id).to_string()).collect());
                    }
                    None => {
                        if let Some(node) = workflow.get(id) {
                            done.insert(&node.id, false);
                            let mut links: Vec<&str> = node.links().map(|(_, other, _)| other).collect();
                            links.reverse();
                            path.push((&node.id, links));
                        }
                    }
                }
            }
            let Some((id, links)) = path.last_mut() else { break };
            match links.pop() {
                Some(link) => next = Some(link),
                None => {
                    done.insert(id, true);
                    order.nodes.push((*id).to_string());
                    path.pop();
                }
            }
        }
    }
    order
}

/// A node and everything that it needs.
pub(super) fn ancestors<'a>(workflow: &'a Workflow, id: &str) -> HashSet<&'a str> {
    let mut found = HashSet::new();
    let mut open: Vec<&str> = workflow.get(id).map(|node| node.id.as_str()).into_iter().collect();
    while let Some(id) = open.pop() {
        if found.insert(id)
            && let Some(node) = workflow.get(id)
        {
            open.extend(
                node.links().filter_map(|(_, other, _)| workflow.get(other)).map(|other| other.id.as_str()),
            );
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    fn workflow(links: &[(&str, &[&str])]) -> Workflow {
        let node = |(id, others): &(&str, &[&str])| {
            let inputs: Map<_, _> = others
                .iter()
                .enumerate()
                .map(|(index, other)| (format!("i{index}"), json!([other, 0])))
                .collect();
            ((*id).to_string(), json!({"class_type": "X", "inputs": inputs}))
        };
        Workflow::from_json(links.iter().map(node).collect::<Map<_, _>>().into()).unwrap()
    }

    #[test]
    fn what_is_needed_comes_first() {
        let workflow =
            workflow(&[("out", &["a", "b"]), ("a", &["c"]), ("b", &["c"]), ("c", &[]), ("alone", &[])]);
        assert_eq!(order(&workflow, &["out".to_string()]).nodes, ["c", "a", "b", "out"]);
        assert_eq!(ancestors(&workflow, "a"), HashSet::from(["a", "c"]));
    }

    #[test]
    fn cycles_are_found() {
        let workflow = workflow(&[("1", &["2"]), ("2", &["3"]), ("3", &["2"])]);
        assert_eq!(order(&workflow, &["1".to_string()]).cycles, [["2", "3"]]);
    }

    #[test]
    fn a_long_chain_does_not_exhaust_the_stack() {
        let ids: Vec<String> = (0..50_000).map(|id| id.to_string()).collect();
        let mut nodes = Map::new();
        for pair in ids.windows(2) {
            nodes.insert(pair[0].clone(), json!({"class_type": "X", "inputs": {"x": [pair[1], 0]}}));
        }
        nodes.insert(ids[49_999].clone(), json!({"class_type": "X"}));
        let workflow = Workflow::from_json(nodes.into()).unwrap();
        assert_eq!(order(&workflow, &["0".to_string()]).nodes.len(), 50_000);
    }
}
