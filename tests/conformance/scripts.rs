//! Every script, over every backend.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::join_all;
use rpc::{Address, Connected, Connection, Endpoint, Server, bind, dial};

use crate::certificates::{self, Authority, Files};
use crate::runner::script::{Mode, Role, Script, StandKind, Suite};
use crate::runner::stand::{ConformanceClient, ConformanceServer, Stand, limits};
use crate::runner::{Patience, run};

/// A backend that scripts run over.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Backend {
    Tcp,
    Memory,
    /// A Unix socket, or a named pipe of Windows.
    Local,
    /// FIFOs, or a named pipe of Windows.
    #[cfg(not(target_vendor = "apple"))]
    Pipe,
    Tls,
}

/// Where a backend's scripts run.
struct Site {
    backend: Backend,
    /// Certificate, key and authority of a server with TLS.
    files: Files,
}

impl Site {
    fn new(backend: Backend) -> Self {
        let files = Files::new();
        if matches!(backend, Backend::Tls) {
            let authority = Authority::new("conformance");
            let issued = authority.issue(certificates::server(&["localhost"]));
            files.add("cert", &issued.chain);
            files.add("key", &issued.key);
            files.add("ca", &authority.pem());
        }
        Self { backend, files }
    }

    /// What to connect to, where something listens.
    fn reach(&self, bound: &Endpoint) -> Endpoint {
        match bound.address() {
            Address::Tls { port, .. } => {
                let ca = self.files.path("ca");
                format!("tls://127.0.0.1:{port}?name=localhost&ca={ca}").parse().expect("it is an endpoint")
            }
            _ => bound.clone(),
        }
    }

    fn endpoint(&self) -> String {
        static NAMES: AtomicU64 = AtomicU64::new(0);
        let name = format!("conformance-{}-{}", std::process::id(), NAMES.fetch_add(1, Ordering::Relaxed));
        match self.backend {
            Backend::Tcp => "tcp://127.0.0.1:0".into(),
            Backend::Memory => format!("mem://{name}"),
            Backend::Local => format!("local://{name}"),
            #[cfg(not(target_vendor = "apple"))]
            Backend::Pipe => format!("pipe://{name}"),
            Backend::Tls => format!("tls://127.0.0.1:0?cert={}&key={}", self.files.path("cert"), self.files.path("key")),
        }
    }
}

/// The stand, behind a listener for each choice of modes.
pub(crate) struct Stands {
    site: Site,
    both: Server,
    multi_only: Server,
    single_only: Server,
}

impl Stands {
    pub(crate) async fn new(backend: Backend) -> Self {
        let builder = || Server::builder().service(ConformanceServer::new(Stand)).limits(limits());
        let site = Site::new(backend);
        Self {
            both: builder().listen(site.endpoint()).await.unwrap(),
            multi_only: builder().multi_session_only().listen(site.endpoint()).await.unwrap(),
            single_only: builder().single_session_only().listen(site.endpoint()).await.unwrap(),
            site,
        }
    }

    /// A bare stream to the stand that a script wants.
    pub(crate) async fn dial(&self, kind: StandKind) -> Connected {
        let server = match kind {
            StandKind::Both => &self.both,
            StandKind::MultiOnly => &self.multi_only,
            StandKind::SingleOnly => &self.single_only,
        };
        dial(self.site.reach(server.endpoint())).await.expect("the stand listens")
    }
}

/// Runs what tests are made of.
pub(crate) fn block_on<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime starts").block_on(test)
}

/// What an initiator's application does, until its connection ends.
async fn application(endpoint: Endpoint, script: &Script) {
    let builder = Connection::builder().limits(limits());
    let builder = if script.mode == Mode::Single { builder.single_session() } else { builder };
    // That it fails is what most of these scripts are about.
    let Ok(connection) = builder.open(endpoint).await else { return };
    if script.call.as_deref() == Some("echo")
        && let Ok(client) = connection.session().open::<ConformanceClient>().await
    {
        let _ = client.echo("hi".into()).await;
    }
    connection.closed().await;
}

/// Plays the acceptor for an initiator.
async fn listen_for(site: &Site, suite: &Suite, script: &Script) -> Result<(), String> {
    let mut listener = bind(site.endpoint()).await.map_err(|error| error.to_string())?;
    let endpoint = site.reach(&listener.endpoint());
    let played = async {
        let incoming = listener.accept().await.map_err(|error| error.to_string())?;
        let io = incoming.connected().await.map_err(|error| error.to_string())?;
        run(io, script.mode, &suite.steps(script), Patience::default()).await
    };
    let (played, ()) = tokio::join!(played, application(endpoint, script));
    played
}

/// Runs the scripts of a file, and tells of all that fail.
fn file(name: &str, backend: Backend) {
    let suite = Suite::load();
    let scripts: Vec<&Script> = suite.scripts.iter().filter(|(file, _)| file == name).map(|(_, script)| script).collect();
    assert!(!scripts.is_empty(), "there is no file `{name}` of scripts");
    let wrong: Vec<String> = block_on(async {
        let stands = Stands::new(backend).await;
        let ran = scripts.iter().map(|script| async {
            let ran = match script.role {
                Role::Acceptor => {
                    run(stands.dial(script.stand).await, script.mode, &suite.steps(script), Patience::default()).await
                }
                Role::Initiator => listen_for(&stands.site, &suite, script).await,
            };
            ran.err().map(|wrong| format!("{} (§{}): {wrong}", script.name, script.sections.join(", §")))
        });
        join_all(ran).await.into_iter().flatten().collect()
    });
    assert!(wrong.is_empty(), "{} of {} scripts failed:\n{}\n", wrong.len(), scripts.len(), wrong.join("\n"));
}

macro_rules! files {
    ($($name:ident: $file:literal),* $(,)?) => {
        files!(@backend tcp, Tcp, $($name: $file,)*);
        files!(@backend memory, Memory, $($name: $file,)*);
        files!(@backend tls, Tls, $($name: $file,)*);
        files!(@backend local, Local, $($name: $file,)*);
        #[cfg(not(target_vendor = "apple"))]
        files!(@backend pipe, Pipe, $($name: $file,)*);

        #[test]
        fn each_file_is_run() {
            let mut listed = vec![$($file,)*];
            listed.sort_unstable();
            let mut there: Vec<String> = Suite::load().scripts.into_iter().map(|(file, _)| file).collect();
            there.dedup();
            assert_eq!(there, listed);
        }
    };
    (@backend $module:ident, $backend:ident, $($name:ident: $file:literal,)*) => {
        mod $module {
            $(#[test]
            fn $name() {
                super::file($file, super::Backend::$backend);
            })*
        }
    };
}

files! {
    framing: "framing",
    handshake: "handshake",
    going_away: "going-away",
    sessions: "sessions",
    closing: "closing",
    exchanges: "exchanges",
    flow: "flow",
    keepalive: "keepalive",
    opener: "opener",
    initiator: "initiator",
}
