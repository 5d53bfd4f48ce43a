//! Other processes: this test binary again, as a server or a client that can be killed, stopped, be another user's, or have
//! another environment.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use rpc::{Connection, Principal, Server};

/// The user and group that own nothing, on Linux and elsewhere.
pub(crate) const NOBODY: u32 = 65_534;

#[rpc::service]
pub(crate) trait Desk {
    /// Number of the user, of his group, and of the process that calls.
    async fn who(&self, cx: &rpc::Context) -> rpc::Result<Option<(u32, u32, Option<u32>)>>;
    async fn take(&self, bytes: Bytes) -> rpc::Result<u64>;
    async fn hang(&self) -> rpc::Result<()>;
}

pub(crate) struct Clerk;

impl Desk for Clerk {
    async fn who(&self, cx: &rpc::Context) -> rpc::Result<Option<(u32, u32, Option<u32>)>> {
        Ok(cx.peer().and_then(|peer| user(peer.principal.as_ref())))
    }

    async fn take(&self, bytes: Bytes) -> rpc::Result<u64> {
        Ok(bytes.len() as u64)
    }

    async fn hang(&self) -> rpc::Result<()> {
        std::future::pending().await
    }
}

pub(crate) fn user(principal: Option<&Principal>) -> Option<(u32, u32, Option<u32>)> {
    match principal {
        Some(Principal::UnixUser { uid, gid, pid }) => Some((*uid, *gid, *pid)),
        _ => None,
    }
}

/// User and group of this process.
pub(crate) fn myself() -> (u32, u32) {
    let folder = Folder::new();
    let own = fs::metadata(&folder.path).unwrap();
    (own.uid(), own.gid())
}

/// Whether this process can become others; says so where it cannot, and the test is none.
pub(crate) fn is_root() -> bool {
    let root = myself().0 == 0 && Command::new("setpriv").arg("--version").output().is_ok_and(|output| output.status.success());
    if !root {
        eprintln!("skipped: it takes root and `setpriv` to be another user");
    }
    root
}

pub(crate) fn mode(path: impl AsRef<Path>) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

/// A directory for one test.
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
}

impl Folder {
    pub(crate) fn new() -> Self {
        static NAMES: AtomicU64 = AtomicU64::new(0);
        let name = format!("rpc-it-{}-{}", std::process::id(), NAMES.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self { path }
    }

    /// The names in it, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        names(&self.path)
    }
}

/// The names in a directory, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A process that is killed with this. It ends by itself when its parent is gone.
pub(crate) struct Other {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Other {
    /// Starts this binary to do `what` at an endpoint: `serve`, `relisten`, `activated`, `call` or `loop`.
    pub(crate) fn start(what: &str, endpoint: &str) -> Self {
        Self::start_with(Command::new(std::env::current_exe().unwrap()), what, endpoint)
    }

    /// The same for a command that ends with this binary.
    pub(crate) fn start_with(mut command: Command, what: &str, endpoint: &str) -> Self {
        command.args(["--exact", "processes::other_process", "--ignored", "--nocapture", "--test-threads", "1"]);
        command.env("RPC_OTHER_PROCESS", format!("{what} {endpoint}"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The next thing that it has to say.
    pub(crate) fn says(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "the process ended without a word");
            if let Some((_, said)) = line.trim_end().split_once("says: ") {
                return said.to_owned();
            }
        }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, `STOP` or `CONT`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        // A signal is delivered some time behind its sending: a process that is stopped says so once each of its threads is.
        while name == "STOP" && !self.is_stopped() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// Whether no thread of it runs any more; always where there is no way to see it.
    fn is_stopped(&self) -> bool {
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", self.child.id())) else { return true };
        let stat = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        tasks.flatten().all(|task| stat(task).rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T')))
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This binary run by nobody, from a copy where he can read it.
pub(crate) fn as_nobody(folder: &Folder) -> Command {
    let copy = folder.path.join("it");
    if !copy.exists() {
        fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&folder.path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let id = NOBODY.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).arg(copy).current_dir("/");
    command
}

/// This binary with a mask for the files that it makes.
pub(crate) fn with_umask(umask: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("umask {umask}; exec \"$0\" \"$@\"")]).arg(std::env::current_exe().unwrap());
    command
}

#[allow(clippy::print_stdout, reason = "it is how a process tells its parent")]
fn say(text: impl std::fmt::Display) {
    println!("says: {text}");
}

async fn call(endpoint: &str) -> Result<String, Box<dyn std::error::Error>> {
    let connection = Connection::open(endpoint).await?;
    let desk: DeskClient = connection.session().open().await?;
    Ok(format!("{:?}", DeskClient::who(&desk).await?.map(|(uid, gid, _)| (uid, gid))))
}

async fn do_it(what: &str, endpoint: &str) -> Result<(), Box<dyn std::error::Error>> {
    let builder = || Server::builder().service(DeskServer::new(Clerk));
    match what {
        "serve" => {
            let server = builder().listen(endpoint).await?;
            say(server.endpoint());
            server.wait().await;
        }
        "relisten" => {
            for _ in 0..200 {
                builder().listen(endpoint).await?.shutdown().await;
            }
            say("done");
        }
        "activated" => {
            let (one, two) = endpoint.split_once(',').unwrap();
            let one = builder().serve(rpc::activated(one)?)?;
            let again = rpc::activated("0").unwrap_err();
            let two = builder().serve(rpc::activated(two)?)?;
            say(format!("{} {} {again}", one.endpoint(), two.endpoint()));
            one.wait().await;
        }
        "call" => say(call(endpoint).await?),
        "loop" => loop {
            call(endpoint).await?;
            say("called");
        },
        _ => panic!("`{what}` is nothing to do"),
    }
    Ok(())
}

/// What the other process runs.
#[test]
#[ignore = "it is what other processes of the tests run"]
fn other_process() {
    let Ok(task) = std::env::var("RPC_OTHER_PROCESS") else { return };
    let (what, endpoint) = task.split_once(' ').unwrap();
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Err(error) = runtime.block_on(do_it(what, endpoint)) {
        say(format!("error: {error}"));
    }
}
