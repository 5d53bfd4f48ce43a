//! From a string to an endpoint, with the column of what is wrong.

use std::path::PathBuf;
use std::str::FromStr;

use super::{Address, Endpoint, EndpointError, Options};

/// Bytes that stand for themselves in paths and values.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~/:@,+!*()[]\\".contains(&byte)
}

/// Bytes as they are written in paths and values.
pub(super) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            _ if is_plain(byte) => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// What is wrong, and at which byte.
type Problem = (usize, String);

fn problem<T>(at: usize, text: impl Into<String>) -> Result<T, Problem> {
    Err((at, text.into()))
}

/// The text at `at`, with `%` and two digits replaced by their byte.
fn unescape(text: &str, at: usize) -> Result<String, Problem> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let here = at + text.len() - rest.len();
        rest = behind;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let digits = behind.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match digits.filter(|two| two.bytes().all(|digit| digit.is_ascii_hexdigit())) {
            Some("00") => return problem(here, "there is no zero byte in names and paths"),
            // Two hexadecimal digits are a byte.
            Some(two) => bytes.push(u8::from_str_radix(two, 16).unwrap_or_default()),
            None => return problem(here, "two hexadecimal digits follow a %, and %25 is the sign itself"),
        }
        rest = &rest[2..];
    }
    String::from_utf8(bytes).or_else(|_| problem(at, "the bytes behind the % are no UTF-8"))
}

fn network(text: &str, at: usize, scheme: &str) -> Result<(String, u16), Problem> {
    let Some((host, port)) = text.rsplit_once(':') else {
        return problem(at + text.len(), format!("a port is missing: write {scheme}://host:port"));
    };
    let Ok(port) = port.parse() else {
        return problem(at + host.len() + 1, "the port is no number from 0 to 65535");
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if bare.is_none() && host.contains(':') {
        return problem(at, format!("an IPv6 address stands in brackets: write {scheme}://[::1]:port"));
    }
    match bare.unwrap_or(host) {
        "" => problem(at, format!("a host is missing: write {scheme}://host:port")),
        host => Ok((host.to_owned(), port)),
    }
}

/// A name that is a file's on one platform and a pipe's on another.
fn plain_name(text: &str, at: usize, scheme: &str) -> Result<String, Problem> {
    if text.is_empty() {
        return problem(at, format!("a name is missing: write {scheme}://name"));
    }
    if text.len() > 80 {
        return problem(at, "the name is longer than 80 bytes, which is more than some platform takes");
    }
    if let Some((bad, _)) = text.char_indices().find(|(_, c)| !c.is_ascii_alphanumeric() && !"._-".contains(*c)) {
        return problem(at + bad, "a name has letters, digits, `.`, `_` and `-`, so that it is one on every platform");
    }
    if !text.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return problem(at, "a name begins with a letter or a digit");
    }
    Ok(text.to_owned())
}

fn unix(text: &str, at: usize) -> Result<Address, Problem> {
    if let Some(name) = text.strip_prefix('@') {
        return match name {
            "" => problem(at + 1, "a name is missing: write unix://@name"),
            name => Ok(Address::Abstract { name: unescape(name, at + 1)? }),
        };
    }
    if text.is_empty() {
        return problem(at, "a path is missing: write unix:///path");
    }
    if !["/", "./", "../"].iter().any(|start| text.starts_with(start)) {
        return problem(at, "a path starts with a third slash, unix:///path, or with a point, unix://./path");
    }
    Ok(Address::Unix { path: PathBuf::from(unescape(text, at)?) })
}

fn address(scheme: &str, text: &str, at: usize) -> Result<Address, Problem> {
    Ok(match scheme {
        "tcp" => {
            let (host, port) = network(text, at, "tcp")?;
            Address::Tcp { host, port }
        }
        "tls" => {
            let (host, port) = network(text, at, "tls")?;
            Address::Tls { host, port }
        }
        "unix" => unix(text, at)?,
        "pipe" => Address::Pipe { name: plain_name(text, at, "pipe")? },
        "local" => Address::Local { name: plain_name(text, at, "local")? },
        "mem" if text.is_empty() => return problem(at, "a name is missing: write mem://name"),
        "mem" => Address::Memory { name: unescape(text, at)? },
        _ => return problem(0, "the scheme is not known: there are tcp, tls, unix, pipe, local and mem"),
    })
}

/// Names with commas and an `and`.
fn list(names: &[&str]) -> String {
    match names {
        [] => "no options".to_owned(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

fn options(text: &str, mut at: usize, address: &Address) -> Result<Options, Problem> {
    let (mut options, mut seen) = (Options::default(), Vec::new());
    let known = Options::of(address);
    for pair in text.split('&') {
        let Some((key, value)) = pair.split_once('=') else {
            return problem(at + pair.len(), format!("an option has a value: write {pair}=VALUE"));
        };
        if !known.contains(&key) {
            return problem(at, format!("`{key}` is no option here: there are {}", list(known)));
        }
        if seen.contains(&key) {
            return problem(at, format!("`{key}` stands here already: write it once"));
        }
        seen.push(key);
        let start = at + key.len() + 1;
        let value = unescape(value, start)?;
        if value.is_empty() {
            return problem(start, format!("an option has a value: write {key}=VALUE"));
        }
        options.set(key, value).or_else(|text| problem(start, text))?;
        at += pair.len() + 1;
    }
    Ok(options)
}

fn endpoint(text: &str) -> Result<Endpoint, Problem> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return problem(0, "a scheme is missing: write tcp://host:port, unix:///path, local://name or another");
    };
    let start = scheme.len() + 3;
    let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
    let address = address(scheme, place, start)?;
    let at = start + place.len() + 1;
    let options = query.map_or(Ok(Options::default()), |query| options(query, at, &address))?;
    if let Some(key) = options.lacks_tls(&address) {
        return problem(at, format!("`{key}` is for TLS: add tls=NAME with the server's name"));
    }
    Ok(Endpoint { address, options: Box::new(options) })
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        endpoint(text).map_err(|(at, problem)| {
            let column = text[..at].chars().count() + 1;
            EndpointError { text: text.to_owned(), column, problem }
        })
    }
}
