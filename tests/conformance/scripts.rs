//! Every script, over every backend.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::join_all;
use rpc::{Connected, Connection, Endpoint, Server, bind, dial};

use crate::runner::script::{Mode, Role, Script, StandKind, Suite};
use crate::runner::stand::{ConformanceClient, ConformanceServer, Stand, limits};
use crate::runner::{Patience, run};

/// A backend that scripts run over.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Backend {
    Tcp,
    Memory,
}

impl Backend {
    fn endpoint(self) -> String {
        static NAMES: AtomicU64 = AtomicU64::new(0);
        match self {
            Self::Tcp => "tcp://127.0.0.1:0".into(),
            Self::Memory => format!("mem://conformance-{}", NAMES.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

/// The stand, behind a listener for each choice of modes.
pub(crate) struct Stands {
    both: Server,
    multi_only: Server,
    single_only: Server,
}

impl Stands {
    pub(crate) async fn new(backend: Backend) -> Self {
        let builder = || Server::builder().service(ConformanceServer::new(Stand)).limits(limits());
        Self {
            both: builder().listen(backend.endpoint()).await.unwrap(),
            multi_only: builder().multi_session_only().listen(backend.endpoint()).await.unwrap(),
            single_only: builder().single_session_only().listen(backend.endpoint()).await.unwrap(),
        }
    }

    /// A bare stream to the stand that a script wants.
    pub(crate) async fn dial(&self, kind: StandKind) -> Connected {
        let server = match kind {
            StandKind::Both => &self.both,
            StandKind::MultiOnly => &self.multi_only,
            StandKind::SingleOnly => &self.single_only,
        };
        dial(server.endpoint()).await.expect("the stand listens")
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
async fn listen_for(backend: Backend, suite: &Suite, script: &Script) -> Result<(), String> {
    let mut listener = bind(backend.endpoint()).await.map_err(|error| error.to_string())?;
    let endpoint = listener.endpoint();
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
                Role::Initiator => listen_for(backend, &suite, script).await,
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
