//! Named pipes by themselves, below the protocol.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rpc_core::context::Principal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::endpoint::Address;

fn fresh() -> (String, Endpoint) {
    static NAMES: AtomicU64 = AtomicU64::new(0);
    let name = format!("rpc-room-{}-{}", std::process::id(), NAMES.fetch_add(1, Ordering::Relaxed));
    let endpoint = Endpoint::new(Address::Pipe { name: name.clone() });
    (name, endpoint)
}

/// The two ends of a pipe: the client's, and the server's.
async fn pair() -> (Connected, Connected) {
    let (name, endpoint) = fresh();
    let mut listener = listen(&name, &endpoint).await.unwrap();
    let (client, incoming) = tokio::join!(connect(&name, &endpoint), listener.accept());
    (client.unwrap(), incoming.unwrap().connected().await.unwrap())
}

#[test]
fn a_path_is_no_longer_than_windows_takes_and_stays_in_its_folder() {
    assert_eq!(path("kv").unwrap(), r"\\.\pipe\kv");
    assert!(path(&"x".repeat(247)).is_ok());
    assert_eq!(path(&"x".repeat(248)).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(path(r"a\b").unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn only_the_same_user_and_the_system_are_trusted_as_servers() {
    let (own, other) = ("S-1-5-21-1-2-3-1001", "S-1-5-21-1-2-3-1002");
    assert!(identity::trust(Some(own), own).is_ok());
    assert!(identity::trust(Some("S-1-5-18"), own).is_ok());
    for server in [Some(other), Some("S-1-5-19"), Some(""), None] {
        let error = identity::trust(server, own).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
    }
}

#[test]
fn the_descriptor_names_two_and_inherits_from_nobody() {
    assert_eq!(descriptor("S-1-5-21-7"), "D:P(A;;GA;;;S-1-5-21-7)(A;;GA;;;S-1-5-18)");
}

#[tokio::test]
async fn each_end_is_told_who_is_at_the_other() {
    let (client, server) = pair().await;
    let own = identity::own().await.unwrap();
    assert!(own.starts_with("S-1-5-"), "{own}");
    for end in [client, server] {
        let Some(Principal::WindowsUser { sid, pid }) = end.peer.principal else { panic!("nobody is there") };
        assert_eq!((sid.as_str(), pid), (own, std::process::id()));
        assert!(end.peer.endpoint.starts_with("pipe://rpc-room-"));
    }
}

#[tokio::test]
async fn a_process_that_is_gone_is_nobody() {
    assert_eq!(identity::of(u32::MAX - 3).await.unwrap(), None);
}

#[tokio::test]
async fn nobody_listens_is_an_error_at_once() {
    let (name, endpoint) = fresh();
    assert_eq!(connect(&name, &endpoint).await.unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn a_busy_pipe_is_tried_until_it_is_free() {
    let (name, endpoint) = fresh();
    let mut listener = listen(&name, &endpoint).await.unwrap();
    // The only instance has its client; nobody accepts it yet.
    let first = connect(&name, &endpoint).await.unwrap();
    assert_eq!(open(&path(&name).unwrap()).unwrap_err().raw_os_error(), Some(PIPE_BUSY));
    let second = tokio::spawn(async move { connect(&name, &endpoint).await.map(drop) });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!second.is_finished(), "it waits for an instance");
    let accepted = listener.accept().await.unwrap().connected().await.unwrap();
    second.await.unwrap().unwrap();
    drop((first, accepted));
}

#[tokio::test]
async fn a_client_that_left_before_it_was_accepted_does_not_block_the_next() {
    let (name, endpoint) = fresh();
    let mut listener = listen(&name, &endpoint).await.unwrap();
    drop(connect(&name, &endpoint).await.unwrap());
    let client = tokio::spawn(async move {
        let mut client = connect(&name, &endpoint).await.unwrap();
        client.write_all(b"here").await.unwrap();
        client
    });
    let mut came = [0; 4];
    loop {
        // The first is taken and found empty, by an error or by its end.
        let Ok(incoming) = listener.accept().await else { continue };
        let Ok(mut server) = incoming.connected().await else { continue };
        if server.read_exact(&mut came).await.is_ok() {
            break;
        }
    }
    assert_eq!(&came, b"here");
    drop(client.await.unwrap());
}

/// More than the pipe's own buffer, so that its end waits in the sender.
const LAST: usize = 300_000;

async fn loses_nothing(mut sender: Connected, mut reader: Connected) {
    let reading = tokio::spawn(async move {
        // The end comes while all of it is still unread.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut came = Vec::new();
        reader.read_to_end(&mut came).await.unwrap();
        came
    });
    let started = Instant::now();
    sender.write_all(&vec![7; LAST]).await.unwrap();
    sender.shutdown().await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(150), "it ended before the reader had begun");
    assert_eq!(sender.read(&mut [0; 8]).await.unwrap(), 0, "behind it nothing needs to be waited for");
    drop(sender);
    assert!(reading.await.unwrap() == vec![7; LAST]);
}

#[tokio::test]
async fn the_last_bytes_of_either_end_arrive() {
    let (client, server) = pair().await;
    loses_nothing(client, server).await;
    let (client, server) = pair().await;
    loses_nothing(server, client).await;
}

#[tokio::test]
async fn two_ends_that_end_at_once_do_not_wait_for_each_other() {
    let (mut client, mut server) = pair().await;
    client.write_all(&[1; 20_000]).await.unwrap();
    server.write_all(&[2; 20_000]).await.unwrap();
    let both = async { tokio::join!(client.shutdown(), server.shutdown()) };
    let (of_client, of_server) = tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
    of_client.unwrap();
    of_server.unwrap();
}

#[test]
fn a_peer_that_does_not_read_does_not_keep_the_runtime() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (one, other) = (runtime(), runtime());
    let (name, endpoint) = fresh();
    // Its own runtime is not driven any more: it neither reads nor goes away.
    let mut listener = other.block_on(listen(&name, &endpoint)).unwrap();
    let client = std::thread::spawn(move || {
        let mut client = one.block_on(connect(&name, &endpoint)).unwrap();
        let ended = one.block_on(async {
            client.write_all(&[3; 20_000]).await.unwrap();
            tokio::time::timeout(Duration::from_millis(200), client.shutdown()).await.is_ok()
        });
        drop(client);
        drop(one);
        ended
    });
    let incoming = other.block_on(listener.accept()).unwrap();
    let server = other.block_on(incoming.connected()).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send(client.join().unwrap()));
    let ended = told.recv_timeout(Duration::from_secs(20)).expect("the runtime shuts down");
    assert!(!ended, "20 kB cannot have been taken");
    drop((server, listener));
}
