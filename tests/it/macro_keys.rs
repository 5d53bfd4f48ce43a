//! What the keys of `#[rpc(..)]` do, seen from outside.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use futures::stream;
use rpc::{Connection, MethodKind, Server, Streaming};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::harness::{HANG, run, soon};

#[rpc::service]
trait Keyed {
    /// Blocks its thread until the test lets it go.
    #[rpc(spawn)]
    async fn block(&self) -> rpc::Result<u32>;
    /// The same before its first item.
    #[rpc(spawn)]
    async fn block_items(&self) -> rpc::Result<Streaming<u32>>;
    #[rpc(idempotent, name = "look")]
    async fn peek(&self, key: &str) -> rpc::Result<usize>;
    #[rpc(oneway, spawn, idempotent)]
    async fn touch(&self) -> rpc::Result<()>;
}

struct Blocking {
    started: UnboundedSender<()>,
    go: Mutex<Receiver<()>>,
    polled_by: Arc<Mutex<Vec<Option<tokio::task::Id>>>>,
}

impl Blocking {
    fn wait(&self) {
        self.started.send(()).unwrap();
        self.go.lock().unwrap().recv_timeout(HANG / 3).expect("the test lets it go");
    }
}

impl Keyed for Blocking {
    async fn block(&self) -> rpc::Result<u32> {
        self.wait();
        Ok(7)
    }

    async fn block_items(&self) -> rpc::Result<Streaming<u32>> {
        self.wait();
        Ok(Streaming::new(stream::iter([1, 2])))
    }

    async fn peek(&self, key: &str) -> rpc::Result<usize> {
        self.polled_by.lock().unwrap().push(tokio::task::try_id());
        Ok(key.len())
    }

    async fn touch(&self) -> rpc::Result<()> {
        self.polled_by.lock().unwrap().push(tokio::task::try_id());
        self.started.send(()).unwrap();
        Ok(())
    }
}

struct Scene {
    keyed: KeyedClient,
    started: UnboundedReceiver<()>,
    go: Sender<()>,
    polled_by: Arc<Mutex<Vec<Option<tokio::task::Id>>>>,
    _server: Server,
}

impl Scene {
    async fn new() -> Self {
        let (told, started) = unbounded_channel();
        let (go, waits) = channel();
        let polled_by = Arc::default();
        let service = Blocking { started: told, go: Mutex::new(waits), polled_by: Arc::clone(&polled_by) };
        let server = Server::builder().service(KeyedServer::new(service)).listen("tcp://127.0.0.1:0").await.unwrap();
        let connection = Connection::open(server.endpoint()).await.unwrap();
        let keyed = connection.session().open().await.unwrap();
        Self { keyed, started, go, polled_by, _server: server }
    }

    async fn started(&mut self) {
        soon("a handler starts", self.started.recv()).await.expect("the service outlives the test");
    }
}

/// One worker is blocked in the handler, and the other one drives both ends: were the handler polled by the
/// driver, nothing of the connection would move until it returned, and it returns when the calls behind it have.
#[test]
fn a_spawned_handler_that_blocks_its_thread_holds_up_no_other_call_of_the_session() {
    run(async {
        let mut scene = Scene::new().await;
        let blocked = tokio::spawn(scene.keyed.block());
        scene.started().await;
        for _ in 0..20 {
            assert_eq!(soon("a call beside the blocked one", scene.keyed.peek("abc")).await.unwrap(), 3);
        }
        assert!(!blocked.is_finished());
        scene.go.send(()).unwrap();
        assert_eq!(soon("the blocked call", blocked).await.unwrap().unwrap(), 7);
    });
}

#[test]
fn a_spawned_handler_with_a_stream_for_its_answer_holds_up_no_other_call() {
    run(async {
        let mut scene = Scene::new().await;
        let blocked = tokio::spawn(scene.keyed.block_items());
        scene.started().await;
        assert_eq!(soon("a call beside the blocked one", scene.keyed.peek("abc")).await.unwrap(), 3);
        scene.go.send(()).unwrap();
        let mut items = soon("the blocked call", blocked).await.unwrap().unwrap();
        assert_eq!(items.next().await.transpose().unwrap(), Some(1));
        assert_eq!(items.next().await.transpose().unwrap(), Some(2));
        assert!(items.next().await.is_none());
    });
}

#[test]
fn a_spawned_handler_is_polled_by_a_task_of_its_own_and_any_other_by_the_driver_first() {
    run(async {
        let mut scene = Scene::new().await;
        scene.keyed.peek("a").await.unwrap();
        scene.keyed.touch().await.unwrap();
        scene.started().await;
        scene.keyed.touch().await.unwrap();
        scene.started().await;
        scene.keyed.peek("a").await.unwrap();
        let polled_by = scene.polled_by.lock().unwrap().clone();
        let [Some(driver), Some(one), Some(two), Some(again)] = polled_by[..] else { panic!("four handlers in tasks") };
        assert_eq!(driver, again, "what is not spawned is polled in the driver's turn");
        assert!(one != driver && two != driver && one != two);
    });
}

#[test]
fn what_a_service_was_declared_with_can_be_asked() {
    let info = rpc::describe::<KeyedClient>();
    assert_eq!(info.name, "Keyed");
    let mut methods: Vec<_> =
        info.methods.iter().map(|method| (method.name, method.kind, method.idempotent, method.spawn)).collect();
    methods.sort_by_key(|method| method.0);
    assert_eq!(
        methods,
        [
            ("block", MethodKind::Unary, false, true),
            ("block_items", MethodKind::ServerStream, false, true),
            ("look", MethodKind::Unary, true, false),
            ("touch", MethodKind::OneWay, true, true),
        ]
    );
    assert!(info.methods.is_sorted_by_key(|method| method.hash));
}
