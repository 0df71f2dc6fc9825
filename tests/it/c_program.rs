//! vocable.h as C and C++ read it, and the C host among the examples, built and run.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::host::{files, library};
use crate::support::{root, tiny};

/// The compiler that the variable names, or the usual one; `None`, and said so, where there is none.
fn compiler(variable: &str, usual: &str) -> Option<Command> {
    let program = std::env::var_os(variable).filter(|name| !name.is_empty()).unwrap_or(OsString::from(usual));
    if Command::new(&program).arg("--version").output().is_ok_and(|output| output.status.success()) {
        let mut command = Command::new(program);
        command.args(["-Wall", "-Wextra", "-pedantic", "-Werror", "-I"]).arg(root().join("plugin/include"));
        return Some(command);
    }
    println!(
        "SKIPPED: no compiler `{}` (set {variable}): vocable.h was not compiled by it",
        program.display()
    );
    None
}

fn succeeds(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}\n{}{}", text(&output.stdout), text(&output.stderr));
    output
}

#[test]
fn the_header_is_c99_and_cpp() {
    let dir = tempfile::tempdir().unwrap();
    // Uses each kind of thing; the layout is that of `VocableTensor`.
    let source = "#include \"vocable.h\"\n#include \"vocable.h\"\n#include <stddef.h>\n\
        typedef char as_in_rust[sizeof(void *) != 8 || (sizeof(vocable_tensor) == 48 && offsetof(vocable_tensor, shape) == 24) ? 1 : -1];\n\
        vocable_error *(*start)(const char *, const vocable_value *, const char *, vocable_job **) = vocable_job_start;\n\
        uint32_t last(void) { vocable_error_kind kind = VOCABLE_INTERNAL; return (uint32_t)kind + VOCABLE_EVENT_DONE + VOCABLE_HANDLE + VOCABLE_VAE; }\n";
    for (variable, usual, language, standard) in
        [("CC", "cc", "c", "-std=c99"), ("CXX", "c++", "c++", "-std=c++11")]
    {
        let file = dir.path().join(format!("header.{language}"));
        fs::write(&file, source).unwrap();
        if let Some(mut compile) = compiler(variable, usual) {
            succeeds(compile.args([standard, "-fsyntax-only", "-x", language]).arg(file));
        }
    }
}

/// What stands before `(` after `vocable_`.
fn functions(text: &str) -> BTreeSet<String> {
    let names = text.match_indices("vocable_").map(|(start, _)| {
        let end = text[start..].find(|letter: char| !letter.is_alphanumeric() && letter != '_');
        text[start..].split_at(end.unwrap_or(text.len() - start))
    });
    names.filter(|(_, rest)| rest.starts_with('(')).map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn header_and_library_name_the_same_functions() {
    let header = fs::read_to_string(root().join("plugin/include/vocable.h")).unwrap();
    let mut declared = String::new();
    for (index, part) in header.split("/*").enumerate() {
        declared.push_str(if index == 0 { part } else { part.split_once("*/").unwrap().1 });
    }
    let declared = functions(&declared);
    assert_eq!(declared.len(), 39);

    // SAFETY: our own library, whose initialisers do nothing but register it.
    let library = unsafe { libloading::Library::new(library("vocable_plugin")) }.unwrap();
    for name in &declared {
        // SAFETY: only looked up, not called.
        assert!(unsafe { library.get::<*const ()>(name.as_str()) }.is_ok(), "{name} is not exported");
    }

    let sources = root().join("plugin/src/c_abi");
    let source: String =
        files(&sources).iter().map(|name| fs::read_to_string(sources.join(name)).unwrap()).collect();
    let exported = source.split("#[unsafe(no_mangle)]").skip(1).map(|rest| {
        let (signature, _) = rest.split_once('{').unwrap();
        functions(signature).into_iter().next().unwrap()
    });
    assert_eq!(exported.collect::<BTreeSet<_>>(), declared);
}

/// Runs the program on the tiny model; its arguments come after what `command` has already.
fn run(command: &mut Command, output: &Path, steps: usize) -> String {
    let concept = root().join("examples/concepts/mibbet");
    command.arg(library("vocable_plugin")).arg(tiny()).arg(concept).arg(output).arg(steps.to_string());
    String::from_utf8(succeeds(command).stdout).unwrap()
}

/// With `VOCABLE_VALGRIND=1` the program runs under valgrind, whole: valgrind says that the processor has no AVX-512, so that the products of matrices
/// run by their AVX2 kernels. Those for AVX-512 are not looked at in this way.
#[test]
fn the_c_host_learns_a_word_stops_a_run_and_shows_errors() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("c_host");
    let Some(mut compile) = compiler("CC", "cc") else { return };
    compile.arg("-std=c99").arg(root().join("examples/c_host/main.c")).arg("-o").arg(&program);
    if cfg!(unix) {
        compile.arg("-ldl");
    }
    succeeds(&mut compile);

    let said = run(&mut Command::new(&program), dir.path(), 3);
    for wanted in [
        "\"name\":\"vocable\"",
        "21 nodes",
        "error 2: node type `VocableTrainTextualInversio` is not known\n    help: Did you mean 'VocableTrainTextualInversion'?",
        "released 1 time\n",
        "a picture of 64x64",
        "error 5: cancelled\n    help: the vectors after ",
        "3 of 3",
        "\"seed\":\"18446744073709551615\"",
        "previews: 2 pictures of 64x64",
        "all is well",
    ] {
        assert!(said.contains(wanted), "{wanted} is missing in:\n{said}");
    }
    assert!(files(dir.path()).contains(&"from_c.safetensors".to_owned()));

    if std::env::var_os("VOCABLE_VALGRIND").is_none_or(|wish| wish != "1") {
        println!("SKIPPED: the C host under valgrind (VOCABLE_VALGRIND=1 does it)");
        return;
    }
    let output = dir.path().join("valgrind");
    fs::create_dir(&output).unwrap();
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--error-exitcode=1", "--leak-check=full", "--errors-for-leak-kinds=definite"])
        .arg(&program);
    assert!(run(&mut valgrind, &output, 2).contains("all is well"));
}
