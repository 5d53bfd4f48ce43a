//! What no compiler checks: that each room imports from lower floors only, that it says what it is for, and that what
//! must be absent is absent (docs/ARCHITECTURE.md).
//!
//! A room is a source file with the files in the folder of its name; the `mod.rs` of a folder is a room too, called as
//! the folder. Handing a room's own files on (`mod`, `pub use` of a child) is no import, and tests may import anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lowest first. Rooms of one floor do not import each other.
const CORE: &[&[&str]] = &[
    &["code", "id", "pool", "codec", "codec/samples", "wire", "proto"],
    &["codec/limit", "codec/wire", "wire/varint"],
    &["codec/json", "codec/postcard", "codec/shared", "metadata", "wire/header"],
    &["context", "wire/frame"],
    &["wire/hello"],
    &["proto/batch", "proto/error", "proto/schedule", "proto/table", "proto/time"],
    &["proto/bucket", "proto/growth"],
    &["proto/config", "proto/credit", "proto/patience"],
    &["proto/exchange", "proto/input", "proto/outbox"],
    &["proto/connection", "proto/session"],
    &["status"],
    &["streaming", "travel"],
    &["service"],
];

const TRANSPORT: &[&[&str]] = &[
    &["sync"],
    &["actor", "budget", "chunks", "clock", "endpoint", "peers", "report", "tally", "tower", "backend/eyeballs", "backend/files"],
    &["tls"],
    &["ending", "error", "layered", "stream", "backend/users"],
    &[
        "state",
        "backend/fifo",
        "backend/memory",
        "backend/pipe",
        "backend/tcp",
        "backend/tls",
        "backend/unix",
        "backend/without_tls",
    ],
    &["backend", "backend/activation"],
    &["handle", "handler", "local", "registry"],
    &["dispatch", "inspect"],
    &["driver"],
    &["call", "metrics"],
    &["calls", "channel"],
    &["session"],
    &["connection"],
    &["server"],
];

const MACROS: &[&[&str]] = &[
    &["fault", "hash", "shape"],
    &["attr", "model", "parse/nested"],
    &["parse/answer", "parse/argument", "parse/head"],
    &["parse/method"],
    &["parse"],
    &["check"],
    &["expand"],
    &["expand/form", "expand/generics", "expand/info", "expand/outcome"],
    &["expand/client", "expand/local", "expand/server", "expand/trait_item"],
    &["expand/fallback"],
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Rust files under a folder of the workspace, sorted.
fn rust_files(folder: &str) -> Vec<PathBuf> {
    let (mut folders, mut files) = (vec![root().join(folder)], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Source without comments, and without the tests at its end.
fn code(source: &str) -> String {
    let own = source.split("\nmod tests {").next().unwrap_or_default();
    let bare = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    own.lines().map(bare).collect::<Vec<_>>().join("\n")
}

/// Whether a file is tests or test data.
fn is_test(path: &Path) -> bool {
    path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "snapshots")
}

/// The rooms of a crate with what they import.
struct House {
    /// Module path of each file, for example `["proto", "session", "receive"]`, with its code.
    files: BTreeMap<Vec<String>, String>,
    /// What a folder's `mod.rs` hands on: from (folder, name) to the file that has it.
    handed_on: BTreeMap<(Vec<String>, String), Vec<String>>,
}

impl House {
    fn new(krate: &str) -> Self {
        let src = root().join(krate).join("src");
        let mut house = Self { files: BTreeMap::new(), handed_on: BTreeMap::new() };
        for path in rust_files(&format!("{krate}/src")) {
            let inside = path.strip_prefix(&src).expect("it was found there").with_extension("");
            let mut module: Vec<String> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            if is_test(&path) || module == ["lib"] {
                continue;
            }
            if module.last().is_some_and(|last| last == "mod") {
                module.pop();
            }
            house.files.insert(module, code(&read(&path)));
        }
        for (module, code) in &house.files {
            for path in code.split("pub use ").skip(1).flat_map(paths) {
                let [file @ .., name] = &path[..] else { continue };
                let file = [&module[..], file].concat();
                if house.files.contains_key(&file) {
                    house.handed_on.insert((module.clone(), name.clone()), file);
                }
            }
        }
        house
    }

    /// A file's room: files in the folder of another file belong to it.
    fn room(&self, module: &[String]) -> String {
        let own = |upper: &&[String]| !self.is_folder(upper) && self.files.contains_key(*upper);
        let upper = (1..=module.len()).map(|end| &module[..end]).find(own);
        upper.unwrap_or(module).join("/")
    }

    /// Whether a module is a folder with a `mod.rs`: its files are rooms of their own.
    fn is_folder(&self, module: &[String]) -> bool {
        const FOLDERS: [&str; 6] = ["backend", "codec", "wire", "proto", "parse", "expand"];
        module.len() == 1 && FOLDERS.contains(&module[0].as_str())
    }

    /// The file that a path from the crate's root leads to.
    fn find(&self, path: &[String]) -> Option<Vec<String>> {
        let end = (1..=path.len()).rev().find(|end| self.files.contains_key(&path[..*end]))?;
        let file = path[..end].to_vec();
        let named = path.get(end).and_then(|name| self.handed_on.get(&(file.clone(), name.clone())));
        Some(named.cloned().unwrap_or(file))
    }

    /// Every import from one room to another.
    fn imports(&self) -> BTreeSet<(String, String)> {
        let mut imports = BTreeSet::new();
        for (module, code) in &self.files {
            for target in references(module, code) {
                if let Some(file) = self.find(&target) {
                    imports.insert((self.room(module), self.room(&file)));
                }
            }
        }
        imports.retain(|(from, to)| from != to);
        imports
    }

    fn rooms(&self) -> BTreeSet<String> {
        self.files.keys().map(|module| self.room(module)).collect()
    }
}

/// The paths behind `crate::` and `super::` in a module, from the crate's root.
fn references(module: &[String], code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let before = &code[..at];
            if before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '"')) || before.ends_with("super::") {
                continue;
            }
            let mut rest = &code[at..];
            let mut base = module.to_vec();
            if start == "crate::" {
                (base, rest) = (Vec::new(), &rest[start.len()..]);
            }
            while let Some(further) = rest.strip_prefix("super::") {
                base.pop();
                rest = further;
            }
            found.extend(paths(rest).into_iter().map(|path| [&base[..], &path].concat()));
        }
    }
    found
}

/// The paths that `text` starts with: one, or those of a group in braces.
fn paths(text: &str) -> Vec<Vec<String>> {
    let mut path = Vec::new();
    let mut rest = text;
    loop {
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        if end > 0 {
            path.push(rest[..end].to_owned());
        }
        match rest[end..].strip_prefix("::") {
            Some(further) => rest = further,
            None if end == 0 && rest.starts_with('{') => {
                return group(&rest[1..]).into_iter().map(|tail| [&path[..], &tail].concat()).collect();
            }
            None => return vec![path],
        }
    }
}

/// The paths of a group, up to its closing brace.
fn group(text: &str) -> Vec<Vec<String>> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                found.extend(paths(text[start..at].trim()));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found
}

fn floor_of(floors: &[&[&str]], room: &str) -> Option<usize> {
    floors.iter().position(|floor| floor.contains(&room))
}

/// What is wrong with a crate's imports.
fn faults(krate: &str, floors: &[&[&str]]) -> Vec<String> {
    let house = House::new(krate);
    let (rooms, imports) = (house.rooms(), house.imports());
    let listed: BTreeSet<String> = floors.iter().flat_map(|floor| floor.iter().map(ToString::to_string)).collect();
    let mut faults = Vec::new();
    faults.extend(rooms.difference(&listed).map(|room| format!("{krate}: `{room}` has no floor in tests/tidy.rs")));
    faults.extend(listed.difference(&rooms).map(|room| format!("{krate}: `{room}` is in tests/tidy.rs and nowhere else")));
    for (from, to) in &imports {
        if floor_of(floors, from) <= floor_of(floors, to) {
            faults.push(format!("{krate}: `{from}` imports `{to}`, which is not on a lower floor"));
        }
    }
    faults
}

#[track_caller]
fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn each_room_imports_from_lower_floors_only() {
    assert_none(&[faults("rpc-core", CORE), faults("rpc-transport", TRANSPORT), faults("rpc-macros", MACROS)].concat());
}

#[test]
fn the_test_sees_what_it_is_to_see() {
    let core = House::new("rpc-core").imports();
    let has = |from: &str, to: &str| core.contains(&(from.to_owned(), to.to_owned()));
    // By `use crate::…`, by a re-export of a folder, by `super::super::`, by a path within code, and within braces.
    assert!(has("service", "proto/error"));
    assert!(has("streaming", "proto/session"));
    assert!(has("proto/session", "proto/exchange"));
    assert!(has("proto/config", "wire/header"));
    assert!(has("wire/frame", "wire/varint"));
    assert!(!has("wire/header", "wire/frame"));
    assert_eq!(
        paths("a::{b, c::{d, e}, f}; x"),
        [["a", "b"].to_vec(), ["a", "c", "d"].to_vec(), ["a", "c", "e"].to_vec(), ["a", "f"].to_vec()]
    );
    let upside_down: &[&[&str]] = &[&["service"], &["status"]];
    assert!(faults("rpc-core", upside_down).iter().any(|fault| fault.contains("`service` imports `status`")));
}

#[test]
fn each_file_says_what_it_is_for() {
    let folders = [
        "src",
        "rpc-core/src",
        "rpc-transport/src",
        "rpc-macros/src",
        "benches",
        "examples",
        "tests/it",
        "tests/conformance",
        "conformance",
    ];
    let files = folders.into_iter().flat_map(rust_files).filter(|path| !is_test(path) || path.ends_with("tests.rs"));
    let mute = files.filter(|path| !read(path).starts_with("//! "));
    assert_none(&mute.map(|path| format!("{}: its first line is no `//!`", path.display())).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_to_do_later() {
    // In two halves, so that this file is none of its finds.
    let needles = [concat!("todo", "!("), concat!("dbg", "!("), concat!("unimplemented", "!("), concat!("FIX", "ME")];
    let folders = ["src", "rpc-core", "rpc-transport", "rpc-macros", "benches", "examples", "tests", "conformance"];
    let mut faults = Vec::new();
    for path in folders.into_iter().flat_map(rust_files) {
        for (at, line) in read(&path).lines().enumerate() {
            for needle in needles.iter().filter(|needle| line.contains(**needle)) {
                faults.push(format!("{}:{}: `{needle}`", path.display(), at + 1));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn unsafe_code_is_forbidden_everywhere() {
    let manifest = read(&root().join("Cargo.toml"));
    assert!(manifest.contains("unsafe_code = \"forbid\""), "the workspace forbids unsafe code");
    for krate in ["", "rpc-core", "rpc-transport", "rpc-macros"] {
        let manifest = read(&root().join(krate).join("Cargo.toml"));
        assert!(manifest.contains("[lints]\nworkspace = true"), "`{krate}` takes the lints of the workspace");
    }
}

/// The names of the crates that a crate needs to run, its own among them.
fn dependencies(krate: &str) -> BTreeSet<String> {
    let tree = ["tree", "--offline", "-p", krate, "-e", "normal", "--prefix", "none", "--format", "{p}"];
    let output = Command::new(env!("CARGO")).args(tree).current_dir(root()).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn the_core_knows_no_runtime_and_the_macros_know_none_of_us() {
    let core = dependencies("rpc-core");
    for runtime in ["tokio", "mio", "socket2", "async-std", "smol", "rpc-transport", "rpc-macros"] {
        assert!(!core.contains(runtime), "rpc-core depends on {runtime}");
    }
    let macros = dependencies("rpc-macros");
    assert!(macros.contains("syn"), "the list is a list: {macros:?}");
    for ours in ["rpc", "rpc-core", "rpc-transport", "tokio"] {
        assert!(!macros.contains(ours), "rpc-macros depends on {ours}");
    }
}

#[test]
fn the_core_reads_no_clock_and_starts_no_thread() {
    let needles = ["Instant::now", "SystemTime", "std::thread", "std::net", "std::fs", "tokio::"];
    let mut faults = Vec::new();
    for path in rust_files("rpc-core/src").into_iter().filter(|path| !is_test(path)) {
        let code = code(&read(&path));
        faults.extend(
            needles.iter().filter(|needle| code.contains(**needle)).map(|needle| format!("{}: {needle}", path.display())),
        );
    }
    assert_none(&faults);
}
