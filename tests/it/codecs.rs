//! Which codec a session has: who prefers what, what its bytes look like, and what both sides read where they have none in
//! common.

use rpc::{Code, Codec, Connection, ConnectionError, Error, FaultKind, OpenError, ServeError, Server, ServerBuilder};
use rpc_core::wire::frame::{Mode, Reason, flag, kind, session_head};
use rpc_core::wire::hello::{Hello, Reject, SessionAccept, SessionOpen};
use rpc_core::wire::{HeadBuf, varint};

use crate::harness::run;
use crate::lab::{Bench, Lab, LabClient, LabError, LabServer};
use crate::raw::{Raw, frame, greeting, hello, listener, method, open, session_open_in, wide};

const POSTCARD: u8 = 1;
const JSON: u8 = 2;

fn lab() -> ServerBuilder {
    let (bench, _events) = Bench::new();
    Server::builder().service(LabServer::new(bench))
}

async fn serve(builder: ServerBuilder) -> Server {
    builder.listen("tcp://127.0.0.1:0").await.unwrap()
}

/// The bytes of an S_OPEN of the lab.
fn lab_in(sid: u64, codecs: &[u8]) -> Vec<u8> {
    session_open_in(sid, "Lab", <LabClient as rpc::__private::Client>::info().fingerprint, codecs)
}

/// Opens a session by hand, and tells its codec.
async fn session_in(raw: &mut Raw, sid: u64, codecs: &[u8]) -> u8 {
    raw.write(&lab_in(sid, codecs)).await;
    SessionAccept::read(raw.next(kind::S_ACCEPT).await.body(1)).unwrap().codec
}

fn refused(error: OpenError) -> (Code, Vec<u8>, Vec<u8>) {
    match error {
        OpenError::Connection(ConnectionError::Rejected { reason, ours, theirs })
        | OpenError::Rejected { reason, ours, theirs } => (reason.code, ours, theirs),
        other => panic!("{other}"),
    }
}

#[test]
fn nobody_who_asks_for_nothing_gets_anything_but_postcard() {
    run(async {
        let (listener, endpoint) = listener().await;
        let client = tokio::spawn(async move { rpc::connect::<LabClient>(&endpoint[..]).await });
        let (io, _) = listener.accept().await.unwrap();
        let mut raw = Raw { io };
        raw.preface().await;
        assert_eq!(Hello::read(&raw.next(kind::HELLO).await.rest).unwrap().codecs, [POSTCARD, JSON]);
        raw.write(&greeting(kind::HELLO_ACK, &Hello { codecs: vec![POSTCARD, JSON], ..hello(Mode::Single) })).await;
        let open = raw.next(kind::S_OPEN).await;
        assert_eq!(SessionOpen::read(open.body(0)).unwrap().codecs, [POSTCARD, JSON]);
        client.abort();

        let server = serve(lab()).await;
        let (mut raw, codecs) = Raw::client_with(server.endpoint(), &[POSTCARD, JSON]).await;
        assert_eq!(codecs, [POSTCARD, JSON]);
        assert_eq!(session_in(&mut raw, 0, &[POSTCARD, JSON]).await, POSTCARD);
    });
}

#[test]
fn a_session_has_the_first_of_its_codecs_that_the_connection_has() {
    run(async {
        let server = serve(lab()).await;
        let (mut raw, codecs) = Raw::client_with(server.endpoint(), &[9, JSON, 7, POSTCARD]).await;
        assert_eq!(codecs, [JSON, POSTCARD]);
        for (sid, (offered, expected)) in
            [(&[JSON, POSTCARD][..], JSON), (&[POSTCARD, JSON], POSTCARD), (&[9, JSON], JSON), (&[POSTCARD], POSTCARD)]
                .into_iter()
                .enumerate()
        {
            assert_eq!(session_in(&mut raw, 2 * sid as u64, offered).await, expected, "{offered:?}");
        }
        // The server has JSON, and this connection has not.
        let (mut raw, codecs) = Raw::client_with(server.endpoint(), &[POSTCARD]).await;
        assert_eq!(codecs, [POSTCARD]);
        assert_eq!(session_in(&mut raw, 0, &[JSON, POSTCARD]).await, POSTCARD);
        raw.write(&lab_in(2, &[JSON])).await;
        let reject = Reject::read(raw.next(kind::S_REJECT).await.body(1)).unwrap();
        assert_eq!((reject.reason.code, &reject.codecs[..]), (Code::NO_CODEC, &[POSTCARD][..]));
        // Neither does the preference of a server change its client's.
        let server = serve(lab().codecs([Codec::Postcard, Codec::Json])).await;
        let (mut raw, codecs) = Raw::client_with(server.endpoint(), &[JSON, POSTCARD]).await;
        assert_eq!((codecs, session_in(&mut raw, 0, &[JSON, POSTCARD]).await), (vec![JSON, POSTCARD], JSON));
    });
}

#[test]
fn a_session_in_json_is_text_on_the_wire() {
    run(async {
        let server = serve(lab()).await;
        let (mut raw, _) = Raw::client_with(server.endpoint(), &[JSON]).await;
        session_in(&mut raw, 0, &[JSON]).await;
        let calls: [(&str, &[u8], &str, u8); 8] = [
            ("text", br#"["gr\u00fc\u00dfe \"a\""]"#, "\"GRÜSSE \\\"A\\\"\"", 0),
            ("text", b" [ \"a\" ] ", "\"A\"", 0),
            ("slice", b"[[0,255]]", "[0,255]", 0),
            ("slice", b"[\"ab\"]", "[97,98]", 0),
            ("nothing", b"null", "null", 0),
            ("form", br#"[{"Struct":{"next":"Unit","name":""}}]"#, r#"{"Struct":{"name":"","next":"Unit"}}"#, 0),
            ("wide", b"[-1,340282366920938463463374607431768211455]", "[-1,340282366920938463463374607431768211455]", 0),
            ("find", b"[\"two\"]", r#"{"NoSuchKey":"two"}"#, flag::ERR),
        ];
        let mut xid = 0;
        for (name, arguments, answer, error) in calls {
            raw.write(&open(0, xid, method(name), flag::END, arguments)).await;
            let data = raw.next(kind::DATA).await;
            assert_eq!(std::str::from_utf8(data.body(2)), Ok(answer), "{name}");
            assert_eq!(data.flags, flag::EOM | flag::END | error, "{name}");
            xid += 2;
        }
        // And what is no JSON, or of another shape, fails at its call.
        for arguments in
            [&b""[..], b"\x01a", b"[\"a\"", b"[\"a\"] x", b"\"a\"", b"[]", b"[\"a\",1]", b"{\"text\":\"a\"}", b"[\"\xff\"]"]
        {
            raw.write(&open(0, xid, method("text"), flag::END, arguments)).await;
            assert_eq!(raw.reset().await, Code::BAD_ARGUMENTS, "{arguments:?}");
            xid += 2;
        }
        raw.write(&open(0, xid, method("after"), flag::END, b"[3]")).await;
        assert_eq!(raw.next(kind::DATA).await.body(2), b"3");
    });
}

#[test]
fn sessions_of_one_connection_each_have_their_own_codec() {
    run(async {
        let server = serve(lab()).await;
        let connection = Connection::builder().codecs([Codec::Json, Codec::Postcard]).open(server.endpoint()).await.unwrap();
        let json: LabClient = connection.session().open().await.unwrap();
        let postcard: LabClient = connection.session().codec(Codec::Postcard).open().await.unwrap();
        for _ in 0..3 {
            assert_eq!(json.nested(Some(None)).await, Ok(None), "as JSON has it");
            assert_eq!(postcard.nested(Some(None)).await, Ok(Some(None)));
        }
        assert_eq!(Lab::find(&json, "two").await, Err(Error::App(LabError::NoSuchKey("two".into()))));
        assert_eq!(json.float(f64::NAN).await.unwrap_err().fault().unwrap().kind(), FaultKind::Incompatible);
        assert!(postcard.float(f64::NAN).await.unwrap().is_nan());
    });
}

#[test]
fn a_list_of_codecs_that_cannot_be_is_refused_with_the_fix() {
    run(async {
        let server = serve(lab()).await;
        let error = Connection::builder().codecs([]).open(server.endpoint()).await.unwrap_err();
        assert_eq!(error.to_string(), "ConnectionBuilder::codecs is empty; give it at least one of: postcard, json");
        let error = Connection::builder().codecs([Codec::Json, Codec::Json]).open(server.endpoint()).await.unwrap_err();
        assert_eq!(error.to_string(), "ConnectionBuilder::codecs has json twice; name each codec once");
        assert!(matches!(error, OpenError::Config(_)), "{error}");
        let error = lab().codecs([]).listen("tcp://127.0.0.1:0").await.unwrap_err();
        assert_eq!(error.to_string(), "ServerBuilder::codecs is empty; give it at least one of: postcard, json");
        assert!(matches!(error, ServeError::Config(_)), "{error}");
        let connection = Connection::builder().codecs([Codec::Postcard]).open(server.endpoint()).await.unwrap();
        let error = connection.session().codec(Codec::Json).open::<LabClient>().await.unwrap_err();
        let fix = "SessionBuilder::codec is json, which the connection does not offer; add it to ConnectionBuilder::codecs";
        assert_eq!(error.to_string(), fix);
        assert!(matches!(error, OpenError::Config(_)), "{error}");
    });
}

#[test]
fn sides_without_a_common_codec_both_read_both_lists() {
    run(async {
        let server = serve(lab().codecs([Codec::Postcard])).await;
        let error = Connection::builder().codecs([Codec::Json]).open(server.endpoint()).await.unwrap_err();
        let text = "the server refused the connection: no common codec: the client has json, the server has postcard";
        assert_eq!(error.to_string(), text);
        assert_eq!(refused(error), (Code::NO_CODEC, vec![JSON], vec![POSTCARD]));

        let connection = Connection::open(server.endpoint()).await.unwrap();
        let error = connection.session().codec(Codec::Json).open::<LabClient>().await.unwrap_err();
        let text = "the peer refused the session: no common codec: the client has json, the server has postcard";
        assert_eq!(error.to_string(), text);
        assert_eq!(refused(error), (Code::NO_CODEC, vec![JSON], vec![POSTCARD]));
        // The connection lives, and so does whoever asks for less.
        let client: LabClient = connection.session().open().await.unwrap();
        assert_eq!(client.text("a").await.unwrap(), "A");

        // For reasons of another kind the codecs are not what is told.
        let single = serve(lab().single_session_only()).await;
        let error = Connection::open(single.endpoint()).await.unwrap_err();
        assert_eq!(error.to_string(), "the server refused the connection: mode not offered: this side offers [Single]");
    });
}

#[test]
fn a_refusal_carries_both_lists_to_a_raw_client() {
    run(async {
        let server = serve(lab()).await;
        let mut raw = Raw::connect(server.endpoint()).await;
        raw.write(&greeting(kind::HELLO, &Hello { codecs: vec![7, 200], ..hello(Mode::Multi) })).await;
        raw.preface().await;
        let reject = Reject::read(&raw.next(kind::HELLO_REJECT).await.rest).unwrap();
        let text = "the client has 7, 200, the server has postcard, json";
        assert_eq!(reject, Reject { reason: Reason::new(Code::NO_CODEC, text), codecs: vec![POSTCARD, JSON] });
        assert!(raw.rest().await.is_empty(), "the refusal is the last word");

        let (mut raw, _) = Raw::client_with(server.endpoint(), &[JSON]).await;
        raw.write(&lab_in(0, &[7, POSTCARD])).await;
        let reject = Reject::read(raw.next(kind::S_REJECT).await.body(1)).unwrap();
        let text = "the client has 7, postcard, the server has json";
        assert_eq!(reject, Reject { reason: Reason::new(Code::NO_CODEC, text), codecs: vec![JSON] });
        // A list without end is refused in few words.
        raw.write(&lab_in(2, &[9; 100_000])).await;
        let reject = Reject::read(raw.next(kind::S_REJECT).await.body(1)).unwrap();
        assert_eq!(reject.reason.code, Code::NO_CODEC);
        assert!(reject.reason.text.contains("99984 more") && reject.reason.text.len() < 200, "{}", reject.reason.text);
        assert_eq!(session_in(&mut raw, 4, &[JSON]).await, JSON);
    });
}

/// A server by hand, up to where the client's HELLO has come.
async fn greeted() -> (Raw, tokio::task::JoinHandle<Result<LabClient, OpenError>>) {
    let (listener, endpoint) = listener().await;
    let client = tokio::spawn(async move { rpc::connect::<LabClient>(&endpoint[..]).await });
    let (io, _) = listener.accept().await.unwrap();
    let mut raw = Raw { io };
    raw.preface().await;
    raw.next(kind::HELLO).await;
    (raw, client)
}

#[test]
fn a_client_reads_both_lists_whatever_the_server_says() {
    run(async {
        let text = "no common codec: the client has postcard, json, the server has 7, json";
        for words in ["", "say what you like"] {
            let reject = Reject { reason: Reason::new(Code::NO_CODEC, words), codecs: vec![7, JSON] };
            let mut body = Vec::new();
            reject.write(&mut body);

            let (mut raw, client) = greeted().await;
            let preface = rpc_core::wire::hello::PREFACE;
            raw.write(&[&preface[..], &frame(HeadBuf::new(kind::HELLO_REJECT, 0), &body)].concat()).await;
            let error = client.await.unwrap().unwrap_err();
            assert_eq!(error.to_string(), format!("the server refused the connection: {text}"));
            assert_eq!(refused(error), (Code::NO_CODEC, vec![POSTCARD, JSON], vec![7, JSON]));

            let (mut raw, client) = greeted().await;
            raw.write(&greeting(kind::HELLO_ACK, &Hello { codecs: vec![JSON], ..hello(Mode::Single) })).await;
            raw.next(kind::S_OPEN).await;
            raw.write(&frame(session_head(kind::S_REJECT, 0, None), &body)).await;
            let error = client.await.unwrap().unwrap_err();
            assert_eq!(error.to_string(), format!("the peer refused the session: {text}"));
            assert_eq!(refused(error), (Code::NO_CODEC, vec![POSTCARD, JSON], vec![7, JSON]));
        }
    });
}

#[test]
fn a_codec_that_was_not_offered_is_not_taken() {
    run(async {
        let (listener, endpoint) = listener().await;
        let client = tokio::spawn(async move {
            let connection = Connection::builder().codecs([Codec::Json]).open(&endpoint[..]).await?;
            connection.session().open::<LabClient>().await
        });
        let mut raw = Raw::server(&listener, |hello| hello.codecs = vec![JSON]).await;
        let open = raw.next(kind::S_OPEN).await;
        assert_eq!(varint::read(&mut &open.rest[..], "the session id"), Ok(0));
        let mut body = Vec::new();
        SessionAccept { codec: POSTCARD, windows: wide(), methods: None }.write(&mut body);
        raw.write(&frame(session_head(kind::S_ACCEPT, 0, Some(rpc_core::id::Sid(0))), &body)).await;
        let error = client.await.unwrap().unwrap_err();
        assert!(error.to_string().contains("codec 1, which was not offered"), "{error}");
        assert_eq!(error.code(), Some(Code::PROTOCOL));
    });
}
