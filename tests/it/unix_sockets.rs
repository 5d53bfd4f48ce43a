//! Unix sockets: whose they are, what becomes of their files, and who is at the other end.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use rpc::{Connection, ConnectionError, FaultKind, Limits, OpenError, ServeError, Server};

use crate::harness::{run, soon};
use crate::processes::{
    Clerk, DeskClient, DeskServer, Folder, NOBODY, Other, as_nobody, is_root, mode, myself, user, with_umask,
};

pub(crate) async fn serve(endpoint: &str) -> Result<Server, ServeError> {
    Server::builder().service(DeskServer::new(Clerk)).listen(endpoint).await
}

pub(crate) async fn works(endpoint: &str) {
    let connection = soon("it connects", Connection::open(endpoint)).await.unwrap();
    let desk: DeskClient = connection.session().open().await.unwrap();
    assert_eq!(desk.take(Bytes::from(vec![7; 300_000])).await.unwrap(), 300_000);
}

pub(crate) fn refusal(served: Result<Server, ServeError>) -> (io::ErrorKind, String) {
    match served.unwrap_err() {
        ServeError::Listen { source, .. } => (source.kind(), source.to_string()),
        other => panic!("{other}"),
    }
}

pub(crate) async fn unreachable(endpoint: &str) -> (io::ErrorKind, String) {
    match soon("it is refused", Connection::open(endpoint)).await.unwrap_err() {
        OpenError::Unreachable { kind, detail, .. } => (kind, detail),
        other => panic!("{other}"),
    }
}

fn at(path: &Path) -> String {
    format!("unix://{}", path.display())
}

#[test]
fn each_end_knows_the_user_of_the_other() {
    run(async {
        let folder = Folder::new();
        for endpoint in [at(&folder.path.join("s")), format!("local://users-{}", std::process::id())] {
            let server = serve(&endpoint).await.unwrap();
            let connection = Connection::open(server.endpoint()).await.unwrap();
            let desk: DeskClient = connection.session().open().await.unwrap();
            let (uid, gid) = myself();
            let expected = Some((uid, gid, Some(std::process::id())));
            assert_eq!(user(connection.peer().principal.as_ref()), expected);
            assert_eq!(DeskClient::who(&desk).await.unwrap(), expected);
            assert_eq!((server.endpoint().to_string(), connection.peer().endpoint.clone()), (endpoint.clone(), endpoint));
        }
    });
}

#[test]
fn a_socket_has_its_permissions_whatever_the_mask() {
    let (folder, done) = (Folder::new(), Arc::new(AtomicBool::new(false)));
    let (path, until) = (folder.path.clone(), Arc::clone(&done));
    let watch = std::thread::spawn(move || {
        let mut seen = 0;
        while !until.load(Ordering::Relaxed) {
            for entry in fs::read_dir(&path).unwrap().flatten() {
                if let Ok(found) = entry.metadata() {
                    use std::os::unix::fs::PermissionsExt;
                    assert_eq!(found.permissions().mode() & 0o777, 0o600, "{entry:?}");
                    seen += 1;
                }
            }
        }
        seen
    });
    let mut other = Other::start_with(with_umask("0"), "relisten", &at(&folder.path.join("s")));
    assert_eq!(other.says(), "done");
    done.store(true, Ordering::Relaxed);
    assert!(watch.join().unwrap() > 0, "it saw sockets");
    assert_eq!(folder.names(), [""; 0]);

    // And what a mask takes away is given back.
    let path = folder.path.join("open");
    let mut other = Other::start_with(with_umask("077"), "serve", &format!("{}?mode=666", at(&path)));
    other.says();
    assert_eq!(mode(&path), 0o666);
}

#[test]
fn a_socket_of_a_server_that_was_killed_is_replaced() {
    run(async {
        let folder = Folder::new();
        let path = folder.path.join("s");
        let mut other = Other::start("serve", &at(&path));
        other.says();
        other.kill();
        assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
        assert_eq!(unreachable(&at(&path)).await.0, io::ErrorKind::ConnectionRefused);
        let _server = serve(&at(&path)).await.unwrap();
        works(&at(&path)).await;
        assert_eq!(folder.names(), ["s"]);
    });
}

#[test]
fn of_many_servers_that_find_a_stale_socket_one_gets_it() {
    run(async {
        let folder = Folder::new();
        let endpoint = at(&folder.path.join("s"));
        for _ in 0..20 {
            drop(UnixListener::bind(folder.path.join("s")).unwrap());
            let servers = join_all((0..8).map(|_| {
                tokio::spawn({
                    let endpoint = endpoint.clone();
                    async move { serve(&endpoint).await }
                })
            }));
            let (got, refused): (Vec<_>, Vec<_>) = servers.await.into_iter().map(Result::unwrap).partition(Result::is_ok);
            assert_eq!((got.len(), refused.len()), (1, 7));
            works(&endpoint).await;
            for server in got {
                server.unwrap().shutdown().await;
            }
            assert_eq!(folder.names(), [""; 0]);
        }
    });
}

#[test]
fn a_socket_in_use_is_not_taken() {
    run(async {
        let folder = Folder::new();
        let endpoint = at(&folder.path.join("s"));
        let _server = serve(&endpoint).await.unwrap();
        let (kind, text) = refusal(serve(&endpoint).await);
        assert_eq!((kind, &*text), (io::ErrorKind::AddrInUse, "somebody listens there"));
        works(&endpoint).await;
        assert_eq!(folder.names(), ["s"]);
    });
}

#[test]
fn what_is_no_socket_or_somebody_elses_stays() {
    run(async {
        let folder = Folder::new();
        let path = folder.path.join("s");
        fs::write(folder.path.join("victim"), "precious").unwrap();
        let lay: [fn(&Path); 4] = [
            |path| fs::write(path, "mine").unwrap(),
            |path| fs::create_dir(path).unwrap(),
            |path| symlink("victim", path).unwrap(),
            |path| symlink("nowhere", path).unwrap(),
        ];
        for lay in lay {
            lay(&path);
            let before = fs::symlink_metadata(&path).unwrap();
            let (kind, text) = refusal(serve(&at(&path)).await);
            assert_eq!(kind, io::ErrorKind::AddrInUse);
            assert!(text.contains("no socket"), "{text}");
            assert_eq!(fs::symlink_metadata(&path).unwrap().file_type(), before.file_type());
            fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).unwrap();
        }
        assert_eq!(fs::read_to_string(folder.path.join("victim")).unwrap(), "precious");
        assert_eq!(folder.names(), ["victim"]);
        if is_root() {
            drop(UnixListener::bind(&path).unwrap());
            chown(&path, Some(NOBODY), None).unwrap();
            let (kind, text) = refusal(serve(&at(&path)).await);
            assert_eq!(kind, io::ErrorKind::AddrInUse);
            assert!(text.contains("belongs to user 65534"), "{text}");
            assert!(path.symlink_metadata().is_ok());
        }
    });
}

#[test]
fn a_listener_removes_its_own_socket_and_no_other() {
    run(async {
        let folder = Folder::new();
        let path = folder.path.join("s");
        serve(&at(&path)).await.unwrap().shutdown().await;
        assert_eq!(folder.names(), [""; 0]);
        let server = serve(&at(&path)).await.unwrap();
        fs::rename(&path, folder.path.join("away")).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        server.shutdown().await;
        assert_eq!(folder.names(), ["away", "s"]);
    });
}

#[test]
fn links_that_are_swapped_under_a_listener_lead_it_nowhere() {
    run(async {
        let folder = Folder::new();
        let (path, victim) = (folder.path.join("s"), folder.path.join("victim"));
        fs::write(&victim, "precious").unwrap();
        let before = mode(&victim);
        let done = Arc::new(AtomicBool::new(false));
        let (there, until) = (path.clone(), Arc::clone(&done));
        let racer = std::thread::spawn(move || {
            let aside = there.with_extension("link");
            while !until.load(Ordering::Relaxed) {
                let _ = symlink("victim", &there);
                let _ = fs::rename(&there, &aside);
                let _ = fs::remove_file(&aside);
                let _ = symlink("nowhere", &there);
                let _ = fs::remove_file(&there);
                drop(UnixListener::bind(&there));
                let _ = fs::remove_file(&there);
            }
        });
        // Rounds enough to lose some, and one at least that is won.
        let (mut rounds, mut served) = (0, 0);
        while rounds < 500 || served == 0 {
            rounds += 1;
            if let Ok(server) = serve(&format!("{}?mode=666", at(&path))).await {
                served += 1;
                server.shutdown().await;
            }
        }
        done.store(true, Ordering::Relaxed);
        racer.join().unwrap();
        assert_eq!((fs::read_to_string(&victim).unwrap().as_str(), mode(&victim)), ("precious", before));
        assert!(!folder.path.join("nowhere").exists());
    });
}

#[test]
fn a_path_that_is_too_long_is_an_error_that_names_the_limit() {
    run(async {
        let folder = Folder::new();
        let endpoint = at(&folder.path.join("x".repeat(120)));
        for (kind, text) in [refusal(serve(&endpoint).await), unreachable(&endpoint).await] {
            assert_eq!(kind, io::ErrorKind::InvalidInput);
            let limit = if cfg!(target_os = "linux") { "107" } else { "103" };
            assert!(text.contains(limit), "{text}");
        }
        // The longest that goes, although the socket is made under another name.
        let room = if cfg!(target_os = "linux") { 107 } else { 103 } - folder.path.as_os_str().len() - 1;
        let longest = at(&folder.path.join("ö".repeat(room / 2)));
        let _server = serve(&longest).await.unwrap();
        works(&longest).await;
    });
}

#[test]
#[cfg(target_os = "linux")]
fn abstract_names_are_taken_and_freed_and_for_their_user_alone() {
    run(async {
        let endpoint = format!("unix://@rpc-it-{}", std::process::id());
        let server = serve(&endpoint).await.unwrap();
        works(&endpoint).await;
        let (kind, text) = refusal(serve(&endpoint).await);
        assert!(kind == io::ErrorKind::AddrInUse && text.contains("somebody listens there"), "{text}");
        if is_root() {
            let folder = Folder::new();
            let said = Other::start_with(as_nobody(&folder), "call", &endpoint).says();
            assert!(said.starts_with("error: "), "{said}");
        }
        server.shutdown().await;
        assert_eq!(unreachable(&endpoint).await.0, io::ErrorKind::ConnectionRefused);
        let _server = serve(&endpoint).await.unwrap();
    });
}

#[test]
fn other_users_come_in_where_the_mode_says_so_and_are_known() {
    run(async {
        if !is_root() {
            return;
        }
        let folder = Folder::new();
        let path = folder.path.join("s");
        let call = |endpoint: &str| Other::start_with(as_nobody(&folder), "call", endpoint).says();
        let server = serve(&at(&path)).await.unwrap();
        let said = call(&at(&path));
        assert!(said.starts_with("error: ") && said.contains("Permission denied"), "{said}");
        server.shutdown().await;
        let _server = serve(&format!("{}?mode=666", at(&path))).await.unwrap();
        assert_eq!(call(&at(&path)), "Some((65534, 65534))");
    });
}

#[test]
fn a_server_of_the_wrong_user_is_refused_by_a_sentence_that_names_both() {
    run(async {
        let (folder, uid) = (Folder::new(), myself().0);
        let path = folder.path.join("own");
        let _server = serve(&at(&path)).await.unwrap();
        let (kind, text) = unreachable(&format!("{}?user=4711", at(&path))).await;
        assert_eq!(kind, io::ErrorKind::PermissionDenied);
        assert!(text.contains(&format!("user {uid} serves there and not user 4711")), "{text}");
        let (kind, text) = unreachable(&format!("{}?user=alice", at(&path))).await;
        assert!(kind == io::ErrorKind::InvalidInput && text.contains("a number"), "{text}");
        works(&format!("{}?user={uid}", at(&path))).await;
        if is_root() {
            let nobodys = folder.path.join("nobodys");
            fs::create_dir(&nobodys).unwrap();
            chown(&nobodys, Some(NOBODY), Some(NOBODY)).unwrap();
            let path = nobodys.join("s");
            let mut other = Other::start_with(as_nobody(&folder), "serve", &at(&path));
            other.says();
            let (kind, text) = unreachable(&at(&path)).await;
            assert_eq!(kind, io::ErrorKind::PermissionDenied);
            assert!(text.contains("user 65534 serves there and not user 0"), "{text}");
            works(&format!("{}?user=65534", at(&path))).await;
        }
    });
}

#[test]
fn a_hundred_clients_come_at_once() {
    run(async {
        let folder = Folder::new();
        let endpoint = at(&folder.path.join("s"));
        let _server = serve(&endpoint).await.unwrap();
        a_hundred(&endpoint).await;
    });
}

pub(crate) async fn a_hundred(endpoint: &str) {
    let clients = (0..100).map(|_| {
        let endpoint = endpoint.to_owned();
        tokio::spawn(async move { works(&endpoint).await })
    });
    for client in join_all(clients).await {
        client.unwrap();
    }
}

#[test]
fn a_killed_server_is_an_error_for_its_clients_and_a_stopped_one_is_back_pressure() {
    run(async {
        let folder = Folder::new();
        let mut other = Other::start("serve", &at(&folder.path.join("s")));
        dies_and_stalls(&mut other, &at(&folder.path.join("s"))).await;
    });
}

/// A server of another process that stops, and goes on, and is killed.
pub(crate) async fn dies_and_stalls(other: &mut Other, endpoint: &str) {
    assert_eq!(other.says(), endpoint);
    let limits = Limits::default().write_stall(Duration::from_millis(500));
    let stalling = Connection::builder().limits(limits).open(endpoint).await.unwrap();
    let desk: DeskClient = stalling.session().open().await.unwrap();
    let patient = Connection::open(endpoint).await.unwrap();
    let held: DeskClient = patient.session().open().await.unwrap();
    other.signal("STOP");
    // Far more than lies in a socket or a FIFO, and no more than the peer has granted.
    let load = Bytes::from(vec![7; 250_000]);
    let calls: Vec<_> = (0..8).map(|_| tokio::spawn(desk.take(load.clone()))).collect();
    let waiting: Vec<_> = (0..8).map(|_| tokio::spawn(held.take(load.clone()))).collect();
    assert_eq!(soon("nothing is taken any more", stalling.closed()).await, ConnectionError::WriteStall);
    for call in calls {
        soon("the call fails", call).await.unwrap().unwrap_err();
    }
    assert!(waiting.iter().all(|call| !call.is_finished()));
    other.signal("CONT");
    for call in waiting {
        assert_eq!(soon("what waited is taken", call).await.unwrap().unwrap(), 250_000);
    }
    let hanging = tokio::spawn(held.hang());
    works(endpoint).await;
    other.kill();
    let error = soon("the call hears of it", hanging).await.unwrap().unwrap_err();
    assert!(matches!(error.fault().unwrap().kind(), FaultKind::Indeterminate | FaultKind::NotStarted), "{error}");
    soon("the connection hears of it", patient.closed()).await;
}

#[test]
fn a_private_directory_is_made_checked_and_not_reached_by_links() {
    let folder = Folder::new();
    let start = |xdg: &str, tmp: &str| {
        let mut command = with_umask("0");
        command.env("XDG_RUNTIME_DIR", folder.path.join(xdg)).env("TMPDIR", folder.path.join(tmp));
        Other::start_with(command, "serve", "local://kv")
    };
    use std::os::unix::fs::PermissionsExt;
    let make = |name: &str, mode: u32| {
        fs::create_dir(folder.path.join(name)).unwrap();
        fs::set_permissions(folder.path.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    make("xdg", 0o700);
    make("open", 0o777);
    make("tmp", 0o777);
    let mut other = start("xdg", "tmp");
    assert_eq!(other.says(), "local://kv");
    assert_eq!((mode(folder.path.join("xdg/rpc")), mode(folder.path.join("xdg/rpc/kv.sock"))), (0o700, 0o600));
    // A runtime directory that others can change is none, nor is one that is not there.
    let own = format!("rpc-{}", myself().0);
    for xdg in ["open", "missing"] {
        let mut other = start(xdg, "tmp");
        assert_eq!(other.says(), "local://kv");
        assert_eq!((mode(folder.path.join("tmp").join(&own)), folder.names().len()), (0o700, 3));
        assert_eq!(mode(folder.path.join("tmp").join(&own).join("kv.sock")), 0o600);
    }
    let own = folder.path.join("tmp").join(&own);
    fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).unwrap();
    let said = start("missing", "tmp").says();
    assert!(said.starts_with("error: ") && said.contains("with mode 755: give it 700"), "{said}");
    fs::remove_dir_all(&own).unwrap();
    symlink(folder.path.join("xdg"), &own).unwrap();
    let said = start("missing", "tmp").says();
    assert!(said.starts_with("error: ") && said.contains("is no directory, or a link"), "{said}");
    if is_root() {
        fs::remove_file(&own).unwrap();
        fs::create_dir(&own).unwrap();
        fs::set_permissions(&own, fs::Permissions::from_mode(0o700)).unwrap();
        chown(&own, Some(NOBODY), None).unwrap();
        let said = start("missing", "tmp").says();
        assert!(said.starts_with("error: ") && said.contains("belongs to user 65534 and not to this one, 0"), "{said}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn sockets_of_systemd_are_served_by_name_each_once() {
    run(async {
        const PARENT: &str = "
import fcntl, os, socket, sys
one = socket.socket(socket.AF_UNIX); one.bind(sys.argv[1]); one.listen()
two = socket.socket(); two.bind(('127.0.0.1', 0)); two.listen()
high = [fcntl.fcntl(s.fileno(), fcntl.F_DUPFD, 20) for s in (one, two)]
for target, fd in zip((3, 4), high): os.dup2(fd, target, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2', LISTEN_FDNAMES='kv.socket:web')
os.execv(sys.argv[2], sys.argv[2:])";
        if !Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success()) {
            return eprintln!("skipped: there is no `python3` to make sockets and hand them over");
        }
        let folder = Folder::new();
        let path = folder.path.join("s");
        let mut command = Command::new("python3");
        command.args(["-c", PARENT]).arg(&path).arg(std::env::current_exe().unwrap());
        let mut other = Other::start_with(command, "activated", "kv.socket,1");
        let said = other.says();
        let [one, two, text] = said.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{said}") };
        assert_eq!(one, at(&path));
        assert!(two.starts_with("tcp://127.0.0.1:") && !two.ends_with(":0"), "{said}");
        assert_eq!(text, "systemd handed no socket `0` over to this process; there is `web`");
        works(one).await;
        works(two).await;
        let connection = Connection::open(one).await.unwrap();
        let pid = user(connection.peer().principal.as_ref()).unwrap().2;
        assert_eq!(pid, Some(other.id()), "which is the process that made the socket listen");
        // Without systemd there is none, and the error says so.
        let (name, error) = ("kv.socket", rpc::activated("kv.socket").unwrap_err());
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains(name), "{error}");
    });
}
