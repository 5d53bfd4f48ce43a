//! A word count on real files: each file gets a session of its own on one connection, its lines go up as a stream, and
//! its counts come back typed. See `USAGE`; `serve` and `count` run the two sides in two processes or on two hosts.
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::sync::{Arc, atomic::AtomicU64, atomic::Ordering::Relaxed};
use std::time::Duration;
use std::{path::Path, path::PathBuf, process::ExitCode};

use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use rpc::{Connection, Fault, FaultKind, Server, Streaming};
use serde::{Deserialize, Serialize};
use tokio::{signal::ctrl_c, task::spawn_blocking, time::interval};

const USAGE: &str = "usage: quickstart                         server and client in one process, on this repository's texts
       quickstart FILE...                 the same on other files
       quickstart serve ENDPOINT          the server: prints where it listens, serves until ctrl-c
       quickstart count ENDPOINT FILE...  the client
ENDPOINT is tcp://HOST:PORT, for port 0 of which the server takes any free port; between the processes of one machine
also local://NAME, unix:///PATH or pipe://NAME.";

/// Files under way at a time. A server takes 128 sessions on a connection unless its limits say otherwise.
const FILES_AT_A_TIME: usize = 32;

/// Bytes of lines that are read at once.
const READ_AHEAD: usize = 64 * 1024;
const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");
type Outcome<T = ()> = Result<T, Box<dyn Error>>;

#[rpc::service]
trait WordCount {
    /// Counts what comes until the stream ends. A line is bytes with its line end, so that any file can be counted.
    async fn count(&self, lines: Streaming<Vec<u8>>) -> rpc::Result<Counts>;
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Counts {
    lines: u64,
    words: u64,
    bytes: u64,
    longest: String,
}

impl Counts {
    fn of_line(line: &[u8]) -> Self {
        let text = String::from_utf8_lossy(line);
        let longest = text.split(|c: char| !c.is_alphabetic()).max_by_key(|word| word.chars().count());
        let (words, bytes) = (text.split_whitespace().count() as u64, line.len() as u64);
        Self { lines: 1, words, bytes, longest: longest.unwrap_or_default().to_owned() }
    }

    fn add(&mut self, other: Self) {
        self.lines += other.lines;
        self.words += other.words;
        self.bytes += other.bytes;
        if other.longest.chars().count() > self.longest.chars().count() {
            self.longest = other.longest;
        }
    }
}

struct Counter;

impl WordCount for Counter {
    async fn count(&self, mut lines: Streaming<Vec<u8>>) -> rpc::Result<Counts> {
        let mut counts = Counts::default();
        while let Some(line) = lines.next().await {
            // A stream that breaks off is an error here, so half of a file is never counted as the whole.
            counts.add(Counts::of_line(&line?));
        }
        Ok(counts)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let words: Vec<&str> = args.iter().map(|arg| arg.to_str().unwrap_or_default()).collect();
    let done = match words[..] {
        [] => serve_and_count(None).await,
        ["serve", endpoint] => serve(endpoint).await,
        ["count", endpoint, _, ..] => count(endpoint, &args[2..]).await,
        [word, ..] if word == "serve" || word == "count" || word.starts_with('-') => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
        _ => serve_and_count(Some(args)).await,
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    progress("");
    eprintln!("quickstart: {error}");
    ExitCode::FAILURE
}

async fn serve(endpoint: &str) -> Outcome {
    let server = Server::builder().service(WordCountServer::new(Counter)).listen(endpoint).await?;
    println!("{}", server.endpoint());
    ctrl_c().await?;
    server.shutdown().await;
    Ok(())
}

async fn serve_and_count(files: Option<Vec<PathBuf>>) -> Outcome {
    let server = Server::builder().service(WordCountServer::new(Counter)).listen("tcp://127.0.0.1:0").await?;
    count(&server.endpoint().to_string(), &files.map_or_else(own_texts, Ok)?).await
}

/// Counts the files on the server, and prints the table of those that could be counted.
async fn count(endpoint: &str, files: &[PathBuf]) -> Outcome {
    let connection = Connection::open(endpoint).await?;
    let (mut rows, mut failures, bytes) = (Vec::new(), Vec::new(), Arc::<AtomicU64>::default());
    let mut results = stream::iter(files).map(|file| count_file(&connection, file, &bytes)).buffered(FILES_AT_A_TIME);
    let mut tick = interval(Duration::from_millis(50));
    for (done, file) in files.iter().enumerate() {
        let result = loop {
            tokio::select! {
                result = results.next() => break result.expect("a file has a result"),
                why = connection.closed() => Err(format!("{endpoint} was lost at {}: {why}", file.display()))?,
                _ = tick.tick() => progress(&format!("{done} of {} files, {} bytes", files.len(), bytes.load(Relaxed))),
            }
        };
        match result {
            Ok(counts) => rows.push((file.strip_prefix(REPOSITORY).unwrap_or(file).display().to_string(), counts)),
            Err(error) => failures.push(format!("{}: {error}", file.display())),
        }
    }
    progress("");
    let table = if rows.is_empty() { String::new() } else { table(rows) };
    io::stdout().write_all(table.as_bytes())?;
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\nquickstart: "))? }
}

/// Opens a session for the file, which closes with the client at the end, and sends the lines through it.
async fn count_file(connection: &Connection, file: &Path, bytes: &Arc<AtomicU64>) -> Outcome<Counts> {
    let (lines, bytes) = (lines(File::open(file)?), Arc::clone(bytes));
    let lines = lines.inspect_ok(move |line| _ = bytes.fetch_add(line.len() as u64, Relaxed));
    let client: WordCountClient = connection.session().open().await?;
    // The client is a `WordCount` too. As such it takes a stream that can break, which a file can.
    Ok(WordCount::count(&client, Streaming::from_results(lines)).await?)
}

/// The file's lines with their ends. They are read where blocking is allowed, and only as fast as the server counts.
fn lines(file: File) -> impl Stream<Item = rpc::Result<Vec<u8>>> + Send + 'static {
    let batches = stream::try_unfold(BufReader::new(file), |mut file| async move {
        let read = move || io::Result::Ok((read_lines(&mut file)?, file));
        let (lines, file) = spawn_blocking(read).await.map_err(io::Error::from)??;
        io::Result::Ok((!lines.is_empty()).then_some((stream::iter(lines).map(Ok), file)))
    });
    batches.try_flatten().map_err(|error: io::Error| Fault::new(FaultKind::Internal, error.to_string()).into())
}

/// The next lines of the file; none at its end.
fn read_lines(file: &mut impl BufRead) -> io::Result<Vec<Vec<u8>>> {
    let (mut lines, mut bytes, mut line) = (Vec::new(), 0, Vec::new());
    while bytes < READ_AHEAD && file.read_until(b'\n', &mut line)? > 0 {
        bytes += line.len();
        lines.push(std::mem::take(&mut line));
    }
    Ok(lines)
}

/// Shows a person how far it is, in one line that the next call replaces.
fn progress(text: &str) {
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
    }
}

fn table(mut rows: Vec<(String, Counts)>) -> String {
    let mut total = Counts::default();
    rows.iter().for_each(|(_, counts)| total.add(counts.clone()));
    rows.push(("total".to_owned(), total));
    let width = rows.iter().map(|(file, _)| file.chars().count()).max().unwrap_or(0);
    let mut table = format!("{:width$} {:>9} {:>9} {:>12}  longest word\n", "file", "lines", "words", "bytes");
    for (file, Counts { lines, words, bytes, longest }) in rows {
        table += &format!("{file:width$} {lines:>9} {words:>9} {bytes:>12}  {longest:.32}\n");
    }
    table
}

/// This repository's `*.md`, and the `*.rs` in its `src` folders; of the current folder where the repository is gone.
fn own_texts() -> Outcome<Vec<PathBuf>> {
    let root = Some(Path::new(REPOSITORY)).filter(|root| root.is_dir()).unwrap_or(Path::new("."));
    let (mut files, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().map_err(|error| format!("{}: {error}", folder.display()))? {
            let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let source = name.ends_with(".rs") && path.components().any(|folder| folder.as_os_str() == "src");
            if kind.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if kind.is_file() && (source || name.ends_with(".md")) {
                files.push(path);
            }
        }
    }
    files.sort();
    if files.is_empty() { Err(format!("{}: no texts are here; name the files to count", root.display()))? } else { Ok(files) }
}
