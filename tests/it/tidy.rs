//! The rules of the house, read off the sources: who may import whom, and what no file may hold.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::root;

/// All files below `folder` with one of `endings`, but for build output and other hidden folders.
fn files(folder: &str, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" && name != "output" && name != "work" {
                    folders.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no files in {folder}");
    found
}

/// Lines of code: comments and documentation may name what the code may not use.
fn code(path: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim().to_owned()));
    lines.filter(|(_, line)| !line.starts_with("//")).collect()
}

fn forbid(folder: &str, except: &[&str], words: &[&str]) {
    for path in files(folder, &[".rs", "Cargo.toml"]) {
        let inside = path.strip_prefix(root().join(folder)).unwrap().to_string_lossy().replace('\\', "/");
        if except.iter().any(|except| inside.starts_with(except)) {
            continue;
        }
        for (number, line) in code(&path) {
            for word in words {
                assert!(
                    !line.contains(word),
                    "{}:{number}: {word} is not allowed here: {line}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn the_host_sdk_knows_neither_candle_nor_engine_nor_nodes() {
    forbid(
        "host-sdk",
        &[],
        &["candle", "vocable_engine", "vocable-engine", "vocable_nodes", "vocable-nodes"],
    );
}

#[test]
fn the_contract_knows_nothing_of_loader_registry_and_graph() {
    forbid("host-sdk/src/abi", &[], &["crate::loader", "crate::registry", "crate::graph"]);
}

#[test]
fn the_engine_knows_no_host() {
    forbid(
        "nodes/engine",
        &[],
        &["vocable_host_sdk", "vocable-host-sdk", "vocable_nodes", "abi_stable", "libloading"],
    );
}

#[test]
fn abi_stable_stays_in_the_host_sdk() {
    for folder in ["nodes", "plugin", "examples", "host-sdk/host"] {
        forbid(folder, &[], &["abi_stable"]);
    }
}

#[test]
fn the_plugin_knows_nodes_and_host_sdk_alone() {
    forbid("plugin", &[], &["candle", "vocable_engine", "vocable-engine", "libloading"]);
}

/// The identifiers of a file, without its tests.
fn identifiers(path: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]").next().unwrap();
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    let words = lines.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'));
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// A file that handles candle's tensors knows none of the host's values, and the other way round; `convert` turns one into the other.
#[test]
fn only_convert_knows_both_values_and_candle() {
    let candle = ["candle_core", "candle_nn", "candle_transformers"];
    let values = ["TensorBuf", "Value"];
    let mut both = Vec::new();
    for path in files("nodes/src", &[".rs"]) {
        let is_test = |part: std::path::Component<'_>| {
            let part = part.as_os_str().to_string_lossy();
            part == "tests" || part.ends_with("tests.rs")
        };
        if path.strip_prefix(root().join("nodes")).unwrap().components().any(is_test) {
            continue;
        }
        let words = identifiers(&path);
        let has = |names: &[&str]| names.iter().any(|name| words.contains(*name));
        if has(&candle) && words.contains("vocable_host_sdk") && has(&values) {
            both.push(path.strip_prefix(root().join("nodes/src")).unwrap().display().to_string());
        }
    }
    both.sort();
    assert_eq!(both, ["convert.rs", "convert/weights.rs"], "these name both candle and the host's values");
}

#[test]
fn platform_names_come_from_the_platform() {
    for folder in ["host-sdk", "nodes", "plugin", "tests"] {
        for path in files(folder, &[".rs"]) {
            if path.ends_with("tidy.rs") {
                continue;
            }
            for (number, line) in code(&path) {
                for ending in [".so\"", ".dll\"", ".dylib\""] {
                    assert!(!line.contains(ending), "{}:{number}: {line}", path.display());
                }
            }
        }
    }
}

#[test]
fn files_are_rooms() {
    for folder in ["host-sdk", "nodes", "plugin", "examples", "tests"] {
        for path in files(folder, &[".rs", ".py"]) {
            let lines = fs::read_to_string(&path).unwrap().lines().count();
            assert!(lines <= 600, "{}: {lines} lines; split it along a seam", path.display());
        }
    }
}
