//! What a peer's bytes may cost: small messages that would overflow the stack or spin for ever are refused at their call,
//! and trust lifts the limits where it is given.

use std::collections::BTreeSet;

use rpc::__private::Client;
use rpc::{Code, Codec, Connection, FaultKind, Server};
use rpc_core::wire::frame::{Reset, flag, kind};
use serde::{Deserialize, Serialize};

use crate::harness::{run, soon};
use crate::raw::{Raw, method_of, open, session_open_in};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Tree {
    kids: Vec<Self>,
}

impl Tree {
    fn deep(levels: u32) -> Self {
        (1..levels).fold(Self { kids: Vec::new() }, |inner, _| Self { kids: vec![inner] })
    }

    fn depth(&self) -> u32 {
        1 + self.kids.iter().map(Self::depth).max().unwrap_or(0)
    }
}

#[rpc::service]
trait Forest {
    async fn depth(&self, tree: &Tree) -> rpc::Result<u32>;
    async fn grow(&self, levels: u32) -> rpc::Result<Tree>;
    /// Nothing but a count on the wire, and as many turns of a loop.
    async fn count(&self, nothings: BTreeSet<()>) -> rpc::Result<u64>;
}

/// The same service as a peer sees it that means harm: a number has the bytes of a count.
mod hostile {
    #[rpc::service]
    pub(super) trait Forest {
        async fn count(&self, nothings: u64) -> rpc::Result<u64>;
    }
}

struct Wood;

impl Forest for Wood {
    async fn depth(&self, tree: &Tree) -> rpc::Result<u32> {
        Ok(tree.depth())
    }

    async fn grow(&self, levels: u32) -> rpc::Result<Tree> {
        Ok(Tree::deep(levels))
    }

    async fn count(&self, nothings: BTreeSet<()>) -> rpc::Result<u64> {
        Ok(nothings.len() as u64)
    }
}

/// Deeper than any limit, and far from the stack's end.
const DEEP: u32 = 200;

#[test]
fn a_message_too_deep_fails_its_call_alone() {
    for &codec in Codec::ALL {
        run(too_deep(codec));
    }
}

async fn too_deep(codec: Codec) {
    let server = Server::builder().service(ForestServer::new(Wood)).listen("tcp://127.0.0.1:0").await.unwrap();
    let connection = Connection::open(server.endpoint()).await.unwrap();
    let forest: ForestClient = connection.session().codec(codec).open().await.unwrap();
    assert_eq!(forest.depth(&Tree::deep(30)).await, Ok(30));
    let error = forest.depth(&Tree::deep(DEEP)).await.unwrap_err();
    let fault = error.fault().unwrap();
    assert_eq!((fault.kind(), fault.may_have_run()), (FaultKind::Incompatible, false));
    assert!(fault.detail().contains("the depth limit"), "{fault}");
    // An answer is a peer's message too; its call has run.
    let error = forest.grow(DEEP).await.unwrap_err();
    let fault = error.fault().unwrap();
    assert_eq!((fault.kind(), fault.may_have_run()), (FaultKind::Incompatible, true));
    assert_eq!(forest.grow(30).await, Ok(Tree::deep(30)));
}

#[test]
fn a_count_without_end_is_refused_before_it_is_counted() {
    run(async {
        let server = Server::builder().service(ForestServer::new(Wood)).listen("tcp://127.0.0.1:0").await.unwrap();
        let connection = Connection::open(server.endpoint()).await.unwrap();
        let attacker: hostile::ForestClient = connection.session().open().await.unwrap();
        let victim: ForestClient = connection.session().open().await.unwrap();
        assert_eq!(attacker.count(1000).await, Ok(1), "a set of nothing holds it once");
        for count in [1 << 28, 1 << 60, u64::MAX] {
            let error = soon("it is refused", attacker.count(count)).await.unwrap_err();
            assert_eq!(error.fault().unwrap().kind(), FaultKind::Incompatible, "{error}");
        }
        assert_eq!(victim.depth(&Tree::deep(3)).await, Ok(3));
    });
}

/// In JSON no count comes without its elements, so what a few bytes can claim there is depth.
#[test]
fn bytes_of_json_that_mean_harm_fail_at_their_call_alone() {
    run(async {
        let server = Server::builder().service(ForestServer::new(Wood)).listen("tcp://127.0.0.1:0").await.unwrap();
        let victim: ForestClient = rpc::connect(server.endpoint()).await.unwrap();
        let (mut raw, _) = Raw::client_with(server.endpoint(), &[Codec::Json.wire_id()]).await;
        let info = ForestClient::info();
        raw.write(&session_open_in(0, info.name, info.fingerprint, &[Codec::Json.wire_id()])).await;
        raw.next(kind::S_ACCEPT).await;
        let (depth, count) = (method_of::<ForestClient>("depth"), method_of::<ForestClient>("count"));
        let bombs = [
            // In the driver's own turn, and in a task of its own.
            (depth, format!("[{}", r#"{"kids":["#.repeat(6_000)), "the depth limit"),
            (depth, format!("[{}", r#"{"kids":["#.repeat(20_000)), "the depth limit"),
            (depth, format!("[{}{}]", r#"{"kids":["#.repeat(6_000), "]}".repeat(6_000)), "the depth limit"),
            // A struct may come as an array of its fields.
            (depth, "[".repeat(60_000), "the depth limit"),
            (count, "[18446744073709551615]".into(), "invalid type: integer"),
            (count, format!("[[{}{{}}]]", "null,".repeat(10_000)), "invalid type: map"),
            (count, format!("[\"{}\"]", "\\u0000".repeat(10_000)), "invalid type: string"),
        ];
        let mut xid = 0;
        for (method, bomb, words) in bombs {
            raw.write(&open(0, xid, method, flag::END, bomb.as_bytes())).await;
            let reason = Reset::read(raw.next(kind::RESET).await.body(2)).unwrap().reason;
            assert_eq!(reason.code, Code::BAD_ARGUMENTS, "{reason}");
            assert!(reason.text.contains(words), "{reason}");
            xid += 2;
        }
        // What is not read costs no depth, and the session goes on.
        let unread = format!(r#"[{{"kids":[],"new":{}{}}}]"#, "[".repeat(50_000), "]".repeat(50_000));
        for (arguments, answer) in [(&unread[..], "1"), (r#"[{"kids":[{"kids":[]}]}]"#, "2")] {
            raw.write(&open(0, xid, depth, flag::END, arguments.as_bytes())).await;
            assert_eq!(raw.next(kind::DATA).await.body(2), answer.as_bytes());
            xid += 2;
        }
        assert_eq!(victim.depth(&Tree::deep(3)).await, Ok(3));
    });
}

#[test]
fn trust_lifts_the_limits_on_the_side_that_gives_it() {
    for &codec in Codec::ALL {
        run(trusting(codec));
    }
}

async fn trusting(codec: Codec) {
    let server = Server::builder().trusting_service(ForestServer::new(Wood)).listen("tcp://127.0.0.1:0").await.unwrap();
    let connection = Connection::open(server.endpoint()).await.unwrap();
    let wary: ForestClient = connection.session().codec(codec).open().await.unwrap();
    let trusting: ForestClient = connection.session().codec(codec).trusted().open().await.unwrap();
    assert_eq!(wary.depth(&Tree::deep(DEEP)).await, Ok(DEEP));
    assert_eq!(wary.grow(DEEP).await.unwrap_err().fault().unwrap().kind(), FaultKind::Incompatible);
    assert_eq!(trusting.grow(DEEP).await.unwrap().depth(), DEEP);
}
