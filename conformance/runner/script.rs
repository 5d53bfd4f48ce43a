//! Scripts as their files have them (conformance/README.md, "Scripts"), and the patterns that frames are held against.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rpc_core::wire::varint;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// One conversation.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Script {
    pub(crate) name: String,
    /// The sections of docs/PROTOCOL.md whose rules it shows.
    pub(crate) sections: Vec<String>,
    pub(crate) checks: String,
    pub(crate) role: Role,
    pub(crate) mode: Mode,
    /// The steps that stand before its own, by their name in `begin.json`.
    #[serde(default)]
    pub(crate) begin: Option<String>,
    /// Where the acceptor is to offer one mode only.
    #[serde(default)]
    pub(crate) stand: StandKind,
    /// What an initiator's application does.
    #[serde(default)]
    pub(crate) call: Option<String>,
    pub(crate) steps: Vec<Step>,
}

/// Which end is under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Acceptor,
    Initiator,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    Multi,
    Single,
}

/// Which modes an acceptor offers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum StandKind {
    #[default]
    Both,
    MultiOnly,
    SingleOnly,
}

/// One step of a script; its key in the file is its name here.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Step {
    /// Bytes to be written.
    Send(Vec<Bytes>),
    /// The same, byte by byte.
    Trickle(Vec<Bytes>),
    /// Frames that come next, in any order.
    Expect(Vec<Expected>),
    /// Frames that may come from now on, each of them once.
    May(Vec<Expected>),
    /// The eight bytes of the preface come next.
    Preface(Bytes),
    /// CONN_CLOSE with this code comes next, and the end behind it.
    Close(u64),
    /// The transport ends, and nothing comes before.
    End(String),
    /// Nothing comes now but credit and PING.
    Quiet(String),
    /// This end goes: for initiators, whose application then ends.
    Hangup,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bytes {
    /// Hex with spaces; `61*445` is a byte and how often it stands there.
    pub(crate) hex: String,
    pub(crate) note: String,
    /// How often they are sent; missing: once.
    #[serde(default)]
    pub(crate) times: Option<usize>,
}

impl Bytes {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        hex(&self.hex).repeat(self.times.unwrap_or(1))
    }
}

/// A frame that is to come.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expected {
    /// Byte 0, as hex.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The frame's name and what it says, for people.
    pub(crate) note: String,
    /// A pattern of the flags; missing: 00.
    #[serde(default)]
    pub(crate) flags: Option<String>,
    #[serde(default)]
    pub(crate) sid: Option<u64>,
    #[serde(default)]
    pub(crate) xid: Option<u64>,
    /// A pattern of the bytes behind the ids; missing: none are there.
    #[serde(default)]
    pub(crate) body: Option<String>,
    /// Instead of it where the body is a list: keys with a pattern of each value. Other keys may stand there too.
    #[serde(default)]
    pub(crate) list: Option<BTreeMap<String, String>>,
}

/// The scripts of a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "about")]
    _about: String,
    scripts: Vec<Script>,
}

/// All scripts, and the beginnings that they share.
#[derive(Debug, Clone)]
pub(crate) struct Suite {
    /// By the file that they stand in.
    pub(crate) scripts: Vec<(String, Script)>,
    /// Steps by name, for each mode.
    begin: BTreeMap<String, BTreeMap<String, Vec<Step>>>,
}

/// The folder of the suite.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance")
}

/// A file of the suite.
///
/// # Panics
/// If it is not there, or is not what it should be.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> T {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The JSON files of a folder of the suite, sorted.
pub(crate) fn files(name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder().join(name)).expect("the suite stands beside its runner");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("the folder can be read").path()).collect();
    files.retain(|path| path.extension().is_some_and(|ext| ext == "json"));
    files.sort();
    files
}

impl Suite {
    /// Reads the suite.
    ///
    /// # Panics
    /// If a file is not what it should be.
    pub(crate) fn load() -> Self {
        let mut scripts = Vec::new();
        for path in files("scripts") {
            let file: File = read(&path);
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            scripts.extend(file.scripts.into_iter().map(|script| (name.clone(), script)));
        }
        Self { scripts, begin: read(&folder().join("begin.json")) }
    }

    /// All steps of a script, those of its beginning first.
    ///
    /// # Panics
    /// If there is no such beginning.
    pub(crate) fn steps(&self, script: &Script) -> Vec<Step> {
        let mode = if script.mode == Mode::Multi { "multi" } else { "single" };
        let mut steps = Vec::new();
        if let Some(name) = &script.begin {
            let begin = self.begin.get(mode).and_then(|begin| begin.get(name));
            steps.extend_from_slice(begin.unwrap_or_else(|| panic!("{}: there is no beginning `{name}`", script.name)));
        }
        steps.extend_from_slice(&script.steps);
        steps
    }
}

/// Hex to bytes.
///
/// # Panics
/// If it is no hex: scripts and vectors are part of the project.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for token in text.split_whitespace() {
        let (byte, times) = token.split_once('*').unwrap_or((token, "1"));
        let times: usize = times.parse().unwrap_or_else(|_| panic!("`{token}` is no count of a byte"));
        let pairs = byte.as_bytes().chunks(2);
        let pairs = pairs.map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()));
        let read: Vec<u8> = pairs.map(|byte| byte.unwrap_or_else(|| panic!("`{token}` is no hex"))).collect();
        assert!(byte.len().is_multiple_of(2), "`{token}` is half a byte");
        for _ in 0..times {
            bytes.extend_from_slice(&read);
        }
    }
    bytes
}

/// Bytes to hex.
pub(crate) fn show(bytes: &[u8]) -> String {
    let shown: Vec<String> = bytes.iter().take(64).map(|byte| format!("{byte:02x}")).collect();
    let more = if bytes.len() > 64 { format!(" … ({} bytes)", bytes.len()) } else { String::new() };
    shown.join(" ") + &more
}

/// Holds bytes against a pattern: hex; `a|b` for one byte of several; `?` for a varint; `>=n` for one of at least so much;
/// `*` at the end for whatever follows.
///
/// # Errors
/// What does not fit.
pub(crate) fn fits(pattern: &str, mut bytes: &[u8]) -> Result<(), String> {
    let all = bytes;
    let wrong = |token: &str| format!("`{}` does not fit `{pattern}` at `{token}`", show(all));
    for token in pattern.split_whitespace() {
        if token == "*" {
            return Ok(());
        }
        if token == "?" {
            varint::read(&mut bytes, "a field").map_err(|_| wrong(token))?;
        } else if let Some(least) = token.strip_prefix(">=") {
            let least: u64 = least.parse().unwrap_or_else(|_| panic!("`{token}` is no number"));
            let value = varint::read(&mut bytes, "a field").map_err(|_| wrong(token))?;
            if value < least {
                return Err(wrong(token));
            }
        } else if token.contains('|') {
            let (first, rest) = bytes.split_first().ok_or_else(|| wrong(token))?;
            if !token.split('|').any(|one| hex(one) == [*first]) {
                return Err(wrong(token));
            }
            bytes = rest;
        } else {
            bytes = bytes.strip_prefix(&hex(token)[..]).ok_or_else(|| wrong(token))?;
        }
    }
    if bytes.is_empty() { Ok(()) } else { Err(wrong("its end")) }
}

/// The same for a list: each key of the pattern is there.
///
/// # Errors
/// What does not fit.
pub(crate) fn fits_list(pattern: &BTreeMap<String, String>, mut body: &[u8]) -> Result<(), String> {
    let mut found = BTreeMap::new();
    while !body.is_empty() {
        let key = varint::read(&mut body, "a key").map_err(|error| error.to_string())?;
        let len = varint::read(&mut body, "a length").map_err(|error| error.to_string())?;
        let split = usize::try_from(len).ok().and_then(|len| body.split_at_checked(len));
        let (value, rest) = split.ok_or_else(|| format!("the value of key {key} is cut off"))?;
        if found.insert(key.to_string(), value).is_some() {
            return Err(format!("key {key} stands twice"));
        }
        body = rest;
    }
    for (key, pattern) in pattern {
        let value = found.get(key).ok_or_else(|| format!("there is no key {key}"))?;
        fits(pattern, value).map_err(|wrong| format!("key {key}: {wrong}"))?;
    }
    Ok(())
}
