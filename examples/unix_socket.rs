//! A Unix socket between the processes of one machine: the system says which user calls, so a handler can decide by that,
//! without a password and without a key.
#![allow(clippy::print_stdout, reason = "it is a program")]
#![cfg_attr(not(unix), allow(unused, reason = "there is nothing to show"))]

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

/// What both sides share.
#[rpc::service]
trait Notes {
    /// Anybody who can connect reads.
    async fn read(&self, key: &str) -> rpc::Result<Option<String>>;
    /// Only users who are listed write.
    async fn write(&self, cx: &rpc::Context, key: &str, text: &str) -> rpc::Result<u32, NotAllowed>;
}

#[derive(Debug, PartialEq, thiserror::Error, Serialize, Deserialize)]
#[error("user {uid:?} may read and not write")]
struct NotAllowed {
    uid: Option<u32>,
}

#[cfg(unix)]
struct Board {
    writers: Vec<u32>,
    notes: Mutex<BTreeMap<String, String>>,
}

#[cfg(unix)]
impl Board {
    fn for_writers(writers: &[u32]) -> NotesServer<Self> {
        NotesServer::new(Self { writers: writers.to_vec(), notes: Mutex::default() })
    }
}

#[cfg(unix)]
impl Notes for Board {
    async fn read(&self, key: &str) -> rpc::Result<Option<String>> {
        Ok(self.notes.lock().unwrap().get(key).cloned())
    }

    async fn write(&self, cx: &rpc::Context, key: &str, text: &str) -> rpc::Result<u32, NotAllowed> {
        // The system's word, not the client's.
        let uid = match cx.peer().and_then(|peer| peer.principal.as_ref()) {
            Some(rpc::Principal::UnixUser { uid, .. }) if self.writers.contains(uid) => *uid,
            Some(rpc::Principal::UnixUser { uid, .. }) => return Err(NotAllowed { uid: Some(*uid) }.into()),
            _ => return Err(NotAllowed { uid: None }.into()),
        };
        self.notes.lock().unwrap().insert(key.to_owned(), text.to_owned());
        Ok(uid)
    }
}

#[cfg(unix)]
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    use std::os::unix::fs::MetadataExt;

    let path = std::env::temp_dir().join(format!("rpc-example-{}.sock", std::process::id()));
    let endpoint = format!("unix://{}", path.display());
    // Nobody is a writer at first, so that it can be seen how one is refused.
    let server = rpc::Server::builder().service(Board::for_writers(&[])).listen(&*endpoint).await?;
    let socket = std::fs::metadata(&path)?;
    println!("{endpoint} has mode {:o}", socket.mode() & 0o777);
    assert_eq!(socket.mode() & 0o777, 0o600, "others than its user cannot even connect");

    let notes: NotesClient = rpc::connect(&*endpoint).await?;
    assert_eq!(notes.read("greeting").await?, None);
    let refused = NotesClient::write(&notes, "greeting", "hello").await.unwrap_err();
    println!("refused: {refused}");
    assert_eq!(refused, rpc::Error::App(NotAllowed { uid: Some(socket.uid()) }));

    // The socket goes with its server.
    server.shutdown().await;
    assert!(!path.exists());

    // `local://` needs no path: the socket is in a directory that is this user's alone. On Windows it is a named pipe.
    let endpoint = format!("local://rpc-example-{}", std::process::id());
    let _server = rpc::Server::builder().service(Board::for_writers(&[socket.uid()])).listen(&*endpoint).await?;
    let connection = rpc::Connection::open(&*endpoint).await?;
    println!("served by {:?}", connection.peer().principal);
    let notes: NotesClient = connection.session().open().await?;
    assert_eq!(NotesClient::write(&notes, "greeting", "hello").await?, socket.uid());
    assert_eq!(notes.read("greeting").await?.as_deref(), Some("hello"));
    println!("user {} wrote", socket.uid());
    Ok(())
}

#[cfg(not(unix))]
fn main() {
    println!("Unix sockets are not there on this platform; `named_pipe` shows what is");
}
