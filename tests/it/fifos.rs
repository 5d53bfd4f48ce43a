//! Pairs of FIFOs: whose they are, what is left of them, and listeners that are told nonsense.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rpc::Connection;

use crate::harness::{run, soon};
use crate::processes::{DeskClient, Folder, Other, mode, myself, names, user, with_umask};
use crate::unix_sockets::{a_hundred, dies_and_stalls, refusal, serve, unreachable, works};

fn name(what: &str) -> String {
    format!("pipe://{what}-{}", std::process::id())
}

/// A place of its own for other processes to meet.
struct Place {
    folder: Folder,
}

impl Place {
    fn new() -> Self {
        Self { folder: Folder::new() }
    }

    fn start(&self, what: &str) -> Other {
        let mut command = with_umask("0");
        command.env_remove("XDG_RUNTIME_DIR").env("TMPDIR", &self.folder.path);
        Other::start_with(command, what, "pipe://kv")
    }

    fn path(&self) -> PathBuf {
        self.folder.path.join(format!("rpc-{}", myself().0)).join("kv.pipe")
    }

    /// Whether a client finds the server at work.
    fn works(&self) {
        let (uid, gid) = myself();
        assert_eq!(self.start("call").says(), format!("Some(({uid}, {gid}))"));
    }
}

fn mkfifo(path: &Path) {
    assert!(Command::new("mkfifo").args(["-m", "600"]).arg(path).status().unwrap().success());
}

#[test]
fn each_end_knows_the_user_of_the_other() {
    run(async {
        let server = serve(&name("users")).await.unwrap();
        let connection = Connection::open(server.endpoint()).await.unwrap();
        let desk: DeskClient = connection.session().open().await.unwrap();
        let (uid, gid) = myself();
        assert_eq!(user(connection.peer().principal.as_ref()), Some((uid, gid, None)));
        assert_eq!(DeskClient::who(&desk).await.unwrap(), Some((uid, gid, None)));
        let (kind, text) = unreachable(&format!("{}?user=4711", name("users"))).await;
        assert_eq!(kind, io::ErrorKind::PermissionDenied);
        assert!(text.contains(&format!("user {uid} serves there and not user 4711")), "{text}");
    });
}

#[test]
fn a_name_is_taken_once_and_freed_with_nothing_left() {
    run(async {
        assert_eq!(unreachable(&name("taken")).await.0, io::ErrorKind::ConnectionRefused);
        for _ in 0..50 {
            let server = serve(&name("taken")).await.unwrap();
            let (kind, text) = refusal(serve(&name("taken")).await);
            assert!(kind == io::ErrorKind::AddrInUse && text.contains("somebody listens there"), "{text}");
            works(&name("taken")).await;
            server.shutdown().await;
            let (kind, text) = unreachable(&name("taken")).await;
            assert_eq!((kind, &*text), (io::ErrorKind::ConnectionRefused, "nobody listens under that name"));
        }
    });
}

#[test]
fn all_is_private_whatever_the_mask_and_names_are_gone_once_a_connection_stands() {
    let place = Place::new();
    let mut server = place.start("serve");
    assert_eq!(server.says(), "pipe://kv");
    assert_eq!((mode(place.path()), mode(place.path().join("listen"))), (0o700, 0o600));
    let mut client = place.start("loop");
    for _ in 0..200 {
        for entry in fs::read_dir(place.path()).unwrap().flatten() {
            if let Ok(found) = entry.metadata() {
                assert!(found.file_type().is_fifo() && found.permissions().mode() & 0o777 == 0o600, "{entry:?}");
            }
        }
    }
    client.says();
    drop(client);
    place.works();
}

#[test]
fn nonsense_at_the_door_holds_up_nobody() {
    let place = Place::new();
    let mut server = place.start("serve");
    server.says();
    let mut door = OpenOptions::new().write(true).open(place.path().join("listen")).unwrap();
    let id = "0123456789abcdef0123456789abcdef";
    let long = "x".repeat(4000);
    let slash = format!("\nrpc1 ../../../../../../etc/passwd0\n\nrpc1 {}\n", "A".repeat(32));
    let (cut, dead, next) = (format!("\nrpc1 {}", &id[..9]), format!("\nrpc1 {id}\n"), format!("\nrpc2 {id}\n"));
    for nonsense in ["x", "\n", "\n\n\n", "rpc1 ", &long, &slash, &cut, &dead, &next, "\0\u{1}\u{2}", &dead.repeat(100)] {
        door.write_all(nonsense.as_bytes()).unwrap();
        place.works();
    }
    // A flood: the FIFO takes no more than the listener reads.
    let flood = std::thread::spawn(move || (0..2000).for_each(|_| door.write_all(long.as_bytes()).unwrap()));
    place.works();
    flood.join().unwrap();
    place.works();
    assert_eq!(names(&place.path()), ["listen"]);
}

#[test]
fn links_and_files_in_the_place_of_fifos_are_not_opened_and_stay() {
    let place = Place::new();
    let mut server = place.start("serve");
    server.says();
    let victim = place.folder.path.join("victim");
    fs::write(&victim, "precious").unwrap();
    let (one, two) = ("1".repeat(32), "2".repeat(32));
    for end in ["up", "down"] {
        symlink(&victim, place.path().join(format!("{one}.{end}"))).unwrap();
        fs::write(place.path().join(format!("{two}.{end}")), "mine").unwrap();
    }
    let mut door = OpenOptions::new().write(true).open(place.path().join("listen")).unwrap();
    door.write_all(format!("\nrpc1 {one}\n\nrpc1 {two}\n").as_bytes()).unwrap();
    place.works();
    server.kill();
    // Neither does the next listener touch them.
    let mut server = place.start("serve");
    server.says();
    place.works();
    assert_eq!(names(&place.path()).len(), 5);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert_eq!(fs::read_to_string(place.path().join(format!("{two}.up"))).unwrap(), "mine");
    server.kill();
    fs::remove_file(place.path().join("listen")).unwrap();
    fs::write(place.path().join("listen"), "mine").unwrap();
    let said = place.start("serve").says();
    assert!(said.starts_with("error: ") && said.contains("is left as it is"), "{said}");
}

#[test]
fn what_is_left_behind_goes_when_a_listener_starts() {
    let place = Place::new();
    let mut server = place.start("serve");
    server.says();
    server.kill();
    mkfifo(&place.path().join(format!("{}.up", "a".repeat(32))));
    mkfifo(&place.path().join(format!("{}.down", "b".repeat(32))));
    mkfifo(&place.path().join("somebody.else"));
    let mut server = place.start("serve");
    server.says();
    assert_eq!(names(&place.path()), ["listen", "somebody.else"]);
    place.works();
}

#[test]
fn a_client_that_is_killed_at_any_moment_leaves_nothing() {
    let place = Place::new();
    let mut server = place.start("serve");
    server.says();
    // One that was killed before it had opened what it made; the moment is too short to be met by chance.
    mkfifo(&place.path().join(format!("{}.up", "c".repeat(32))));
    for round in 0..40 {
        let mut client = place.start("loop");
        client.says();
        std::thread::sleep(Duration::from_micros(round * 397 % 9000));
        client.kill();
    }
    place.works();
    let gone = (0..60).any(|_| {
        place.works();
        let gone = names(&place.path()) == ["listen"];
        if !gone {
            std::thread::sleep(Duration::from_millis(250));
        }
        gone
    });
    assert!(gone, "{:?}", names(&place.path()));
}

#[test]
fn a_client_waits_for_no_listener_that_dies_at_the_door() {
    run(async {
        let place = Place::new();
        let mut server = place.start("serve");
        server.says();
        server.signal("STOP");
        // Its record lies in the FIFO of a listener that does not read.
        let mut client = place.start("call");
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.kill();
        let said = soon("it is told", tokio::task::spawn_blocking(move || client.says())).await.unwrap();
        assert!(said.starts_with("error: ") && said.contains("nobody listens under that name"), "{said}");
        assert_eq!(names(&place.path()), ["listen"], "what the client made is gone");
    });
}

#[test]
fn a_hundred_clients_come_at_once() {
    run(async {
        let _server = serve(&name("hundred")).await.unwrap();
        a_hundred(&name("hundred")).await;
    });
}

#[test]
fn a_killed_server_is_an_error_for_its_clients_and_a_stopped_one_is_back_pressure() {
    run(async {
        let endpoint = name("dies");
        let mut other = Other::start("serve", &endpoint);
        dies_and_stalls(&mut other, &endpoint).await;
        assert_eq!(unreachable(&endpoint).await.0, io::ErrorKind::ConnectionRefused);
        // The name is free again, and so is what lies there.
        let server = serve(&endpoint).await.unwrap();
        works(&endpoint).await;
        server.shutdown().await;
    });
}
