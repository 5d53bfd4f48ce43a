//! The hex of docs/PROTOCOL.md §13 against the code: every block is decoded, its fields are compared with what the text
//! says of it, and it is encoded again to the same bytes. The conversation in it is also held anew by two real ends, which
//! must write exactly these bytes.

use std::collections::BTreeMap;
use std::time::Duration;

use rpc_core::code::Code;
use rpc_core::id::{ExchangeKey, Sid, Side, Xid};
use rpc_core::metadata::Metadata;
use rpc_core::proto::outbox::{Output, SessionSlot};
use rpc_core::proto::{
    Answer, AnswerKind, Batch, Connection, ConnectionEvent, Handshake, Input, Items, Limits, Link, OpenCommand, Outbox, Session,
    SessionEvent, Time,
};
use rpc_core::wire::frame::{
    Abort, Beside, GoAway, Mode, Open, Reason, Reset, exchange_head, flag, kind, read_cancel, read_varints, session_head,
};
use rpc_core::wire::hello::{Hello, PREFACE, Reject, SessionAccept, SessionOpen, Windows};
use rpc_core::wire::{Frame, Head, HeadBuf, RawFrame, varint};

const SID: Option<Sid> = Some(Sid(0));

/// The blocks of the document by their labels: "```hex label", then bytes; `61*445` is a byte and how often it stands
/// there, and what follows a `;` is for people.
fn blocks() -> BTreeMap<&'static str, Vec<u8>> {
    let mut blocks = BTreeMap::new();
    let mut lines = include_str!("../../docs/PROTOCOL.md").lines();
    while let Some(line) = lines.next() {
        let Some(label) = line.strip_prefix("```hex ") else { continue };
        let mut bytes = Vec::new();
        for line in lines.by_ref().take_while(|line| *line != "```") {
            for token in line.split(';').next().unwrap_or_default().split_whitespace() {
                let (byte, times) = token.split_once('*').unwrap_or((token, "1"));
                let byte = u8::from_str_radix(byte, 16).unwrap_or_else(|_| panic!("`{token}` in the block `{label}`"));
                bytes.extend(std::iter::repeat_n(byte, times.parse().expect("a count stands behind the star")));
            }
        }
        assert!(blocks.insert(label, bytes).is_none(), "two blocks are labelled `{label}`");
    }
    blocks
}

fn block(label: &str) -> Vec<u8> {
    blocks().remove(label).unwrap_or_else(|| panic!("docs/PROTOCOL.md has no block `{label}`"))
}

/// Cuts the one frame that a block holds, and hands it over with its ids read.
fn with_frame<R>(label: &str, mode: Mode, look: impl FnOnce(Frame<'_>) -> R) -> R {
    let bytes = block(label);
    let head = Head::read(&bytes).expect("a frame has a head");
    assert_eq!(head.len as usize, bytes.len() - 4, "{label}: the length covers the block");
    let raw = RawFrame { kind: head.kind, flags: bytes[4], rest: &bytes[5..] };
    look(Frame::read(raw, mode).unwrap_or_else(|error| panic!("{label}: {error}")))
}

fn frame_of(mut head: HeadBuf, body: &[u8]) -> Vec<u8> {
    let mut bytes = head.finish(body.len()).to_vec();
    bytes.extend_from_slice(body);
    bytes
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut body = Vec::new();
    write(&mut body);
    body
}

fn with_varints(mut head: HeadBuf, values: &[u64]) -> Vec<u8> {
    values.iter().for_each(|value| head.varint(*value));
    frame_of(head, &[])
}

/// FNV-1a, by which §5.1 names methods.
fn fnv(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The methods of the example, in the order of their hashes.
fn methods() -> Vec<(u64, &'static str)> {
    let mut methods: Vec<_> = ["get", "log", "put", "watch"].map(|name| (fnv(format!("Kv/{name}").bytes()), name)).into();
    methods.sort_unstable();
    methods
}

fn rank(name: &str) -> u32 {
    methods().iter().position(|(_, method)| *method == name).expect("it is a method") as u32
}

fn fingerprint() -> u64 {
    fnv(methods().iter().flat_map(|(hash, _)| hash.to_le_bytes()))
}

fn hello() -> Hello {
    let limits = Limits::default();
    Hello {
        versions: (1, 1),
        mode: Mode::Multi,
        max_frame: 262_144,
        codecs: vec![1],
        units: 0,
        required_units: 0,
        connection_window: 524_288,
        sessions: 128,
        keepalive_interval_ms: limits.keepalive_interval.as_millis() as u64,
        keepalive_timeout_ms: limits.keepalive_timeout.as_millis() as u64,
    }
}

fn session_open() -> SessionOpen {
    SessionOpen { service: "Kv".into(), fingerprint: fingerprint(), codecs: vec![1], windows: windows(), weight: 16 }
}

fn windows() -> Windows {
    Windows { stream: 262_144, session: 1_048_576, exchanges: 1024, message: 4_194_304 }
}

#[test]
fn the_preface_is_the_preface() {
    assert_eq!(block("preface"), PREFACE);
}

#[test]
fn varints_are_as_the_table_says() {
    for (label, value) in [("varint-37", 37), ("varint-1024", 1024), ("varint-262144", 262_144), ("varint-4294967296", 1 << 32)] {
        let bytes = block(label);
        assert_eq!(varint::read(&mut &bytes[..], "x"), Ok(value));
        assert_eq!(written(|out| varint::push(value, out)), bytes);
    }
}

#[test]
fn hellos_say_what_the_text_says() {
    for (label, expected) in [("hello", kind::HELLO), ("hello-ack", kind::HELLO_ACK)] {
        let read = with_frame(label, Mode::Multi, |frame| {
            assert_eq!((frame.kind, frame.flags), (expected, 0));
            Hello::read(frame.body).unwrap()
        });
        assert_eq!(read, hello(), "{label}");
        assert_eq!(frame_of(HeadBuf::new(expected, 0), &written(|out| read.write(out))), block(label));
    }
    let reject = with_frame("hello-reject", Mode::Multi, |frame| Reject::read(frame.body).unwrap());
    assert_eq!((reject.reason.code, &reject.codecs[..]), (Code::NO_CODEC, &[1][..]));
    assert_eq!(reject.reason.text, rpc_core::codec::nothing_in_common(&[2], &[1]));
    assert_eq!(frame_of(HeadBuf::new(kind::HELLO_REJECT, 0), &written(|out| reject.write(out))), block("hello-reject"));
}

#[test]
fn sessions_are_opened_accepted_and_rejected() {
    let open = with_frame("s-open", Mode::Multi, |frame| {
        assert_eq!((frame.kind, frame.sid), (kind::S_OPEN, Sid(0)));
        SessionOpen::read(frame.body).unwrap()
    });
    assert_eq!(open, session_open());
    assert_eq!(frame_of(session_head(kind::S_OPEN, 0, SID), &written(|out| open.write(out))), block("s-open"));

    let accept = with_frame("s-accept", Mode::Multi, |frame| SessionAccept::read(frame.body).unwrap());
    assert_eq!(accept, SessionAccept { codec: 1, windows: windows(), methods: None });
    assert_eq!(frame_of(session_head(kind::S_ACCEPT, 0, SID), &written(|out| accept.write(out))), block("s-accept"));

    let reject = with_frame("s-reject", Mode::Multi, |frame| {
        assert_eq!((frame.kind, frame.sid), (kind::S_REJECT, Sid(2)));
        Reject::read(frame.body).unwrap()
    });
    assert_eq!(reject.reason, Reason::new(Code::UNKNOWN_SERVICE, "no such service"));
    assert_eq!(frame_of(session_head(kind::S_REJECT, 0, Some(Sid(2))), &written(|out| reject.write(out))), block("s-reject"));

    let abort = with_frame("s-abort", Mode::Multi, |frame| Abort::read(frame.body).unwrap());
    assert_eq!(abort, Abort { rx_next: 5, reason: Reason::new(Code::FLOW, "") });
    assert_eq!(frame_of(session_head(kind::S_ABORT, 0, SID), &written(|out| abort.write(out))), block("s-abort"));
}

/// An OPEN of the document: label, session id, exchange id, flags, fields, message.
type OpenExample = (&'static str, Option<Sid>, u64, u8, Open, Vec<u8>);

#[test]
fn opens_carry_method_options_and_arguments() {
    let method = |name| u64::from(rank(name));
    let plain = |name| Open { method: method(name), timeout_ms: None, total: None };
    let (whole, string) = (flag::EOM | flag::END, b"\x03key".to_vec());
    let examples: [OpenExample; 7] = [
        ("open-get", SID, 0, whole, plain("get"), string.clone()),
        ("open-get-json", SID, 0, whole, plain("get"), b"[\"key\"]".to_vec()),
        ("open-get-single", None, 0, whole, plain("get"), string.clone()),
        ("open-put", SID, 2, whole | flag::EXT, Open { timeout_ms: Some(50), ..plain("put") }, b"\x03key\x05value".to_vec()),
        ("open-log", SID, 4, whole | flag::ONEWAY, plain("log"), b"\x02hi".to_vec()),
        ("open-watch", SID, 6, whole, plain("watch"), b"\x01k".to_vec()),
        ("open-pieces", SID, 8, 0, Open { total: Some(600), ..plain("put") }, vec![0x61; 445]),
    ];
    for (label, sid, xid, flags, open, message) in examples {
        let mode = if sid.is_some() { Mode::Multi } else { Mode::Single };
        with_frame(label, mode, |frame| {
            assert_eq!((frame.kind, frame.flags, frame.sid, frame.xid), (kind::OPEN, flags, Sid(0), Xid(xid)), "{label}");
            assert_eq!(Open::read(&frame).unwrap(), (open, Beside::NOTHING, &message[..]), "{label}");
        });
        let mut head = exchange_head(kind::OPEN, flags, sid, Xid(xid));
        open.write(&mut head);
        assert_eq!(frame_of(head, &message), block(label), "{label}");
    }
}

#[test]
fn metadata_stand_between_timeout_and_arguments() {
    let mut metadata = Metadata::new();
    metadata.insert("authorization", "letmein").unwrap();
    let open = Open { method: rank("get").into(), timeout_ms: Some(50), total: None };
    let beside = Beside { metadata: metadata.encoded(), ..Beside::NOTHING };
    let flags = flag::EXT | flag::EOM | flag::END;
    with_frame("open-metadata", Mode::Multi, |frame| {
        assert_eq!((frame.kind, frame.flags, frame.xid), (kind::OPEN, flags, Xid(12)));
        assert_eq!(Open::read(&frame).unwrap(), (open, beside, &b"\x03key"[..]));
        assert_eq!(frame.charge(), 30);
    });
    with_frame("open-urgent", Mode::Multi, |frame| {
        let (open, urgent) = (Open { timeout_ms: None, ..open }, Beside { urgency: 0, ..Beside::NOTHING });
        assert_eq!(Open::read(&frame).unwrap(), (open, urgent, &b"\x03key"[..]));
        let (mut head, mut body) = (exchange_head(kind::OPEN, flags, SID, Xid(14)), Vec::new());
        open.write_with(urgent, &mut head, &mut body);
        assert_eq!(frame_of(head, b"\x03key"), block("open-urgent"));
    });
    let mut head = exchange_head(kind::OPEN, flags, SID, Xid(12));
    let mut body = Vec::new();
    open.write_with(beside, &mut head, &mut body);
    body.extend_from_slice(b"\x03key");
    assert_eq!(frame_of(head, &body), block("open-metadata"));
}

#[test]
fn data_carries_answers_errors_items_and_pieces() {
    for (label, xid, flags, body, charge) in [
        ("data-get", 0, flag::EOM | flag::END, b"\x01\x05value".to_vec(), 16),
        ("data-put-error", 2, flag::EOM | flag::END | flag::ERR, vec![1], 16),
        ("data-watch-items", 6, flag::EOM, b"\x02k1".to_vec(), 16),
        ("data-get-json", 0, flag::EOM | flag::END, b"\"value\"".to_vec(), 16),
        ("data-put-error-json", 2, flag::EOM | flag::END | flag::ERR, b"\"Full\"".to_vec(), 16),
        ("data-watch-items-json", 6, flag::EOM, b"\"k1\"".to_vec(), 16),
        ("data-watch-end", 6, flag::END, Vec::new(), 16),
        ("data-pieces", 8, flag::EOM | flag::END, vec![0x61; 155], 155),
    ] {
        with_frame(label, Mode::Multi, |frame| {
            assert_eq!((frame.kind, frame.flags, frame.xid, frame.body), (kind::DATA, flags, Xid(xid), &body[..]), "{label}");
            assert_eq!(frame.charge(), charge, "{label}");
        });
        assert_eq!(frame_of(exchange_head(kind::DATA, flags, SID, Xid(xid)), &body), block(label), "{label}");
    }
}

/// The same values in each codec, and each as the encoder writes it.
#[cfg(feature = "json")]
#[test]
fn messages_in_json_are_those_in_postcard() {
    use rpc_core::codec::Codec;
    use serde::{Serialize, de::DeserializeOwned};

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    enum PutError {
        ReadOnly,
        Full,
    }

    #[track_caller]
    fn is<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(label: &str, value: &T) {
        for (label, codec) in [(label.to_owned(), Codec::Postcard), (format!("{label}-json"), Codec::Json)] {
            let message = with_frame(&label, Mode::Multi, |frame| match frame.kind {
                kind::OPEN => Open::read(&frame).unwrap().2.to_vec(),
                _ => frame.body.to_vec(),
            });
            assert_eq!(&codec.decode::<T>(&message, None).unwrap(), value, "{label}");
            assert_eq!(written(|out| codec.encode(value, out).unwrap()), message, "{label}");
        }
    }

    is("open-get", &(String::from("key"),));
    is("data-get", &Some(String::from("value")));
    is("data-watch-items", &String::from("k1"));
    is("data-put-error", &PutError::Full);
}

#[test]
fn stops_name_their_codes() {
    with_frame("cancel", Mode::Multi, |frame| {
        assert_eq!((frame.kind, frame.xid), (kind::CANCEL, Xid(10)));
        assert_eq!(read_cancel(frame.body), Ok(Code::CANCELLED));
    });
    let head = exchange_head(kind::CANCEL, 0, SID, Xid(10));
    assert_eq!(with_varints(head, &[u64::from(Code::CANCELLED.0)]), block("cancel"));

    let reset = with_frame("reset", Mode::Multi, |frame| Reset::read(frame.body).unwrap());
    assert_eq!(reset, Reset { final_offset: 0, reason: Reason::new(Code::CANCELLED, "") });
    assert_eq!(frame_of(exchange_head(kind::RESET, 0, SID, Xid(10)), &written(|out| reset.write(out))), block("reset"));

    with_frame("accept", Mode::Multi, |frame| assert_eq!((frame.kind, frame.xid, frame.body), (kind::ACCEPT, Xid(6), &[][..])));
    assert_eq!(frame_of(exchange_head(kind::ACCEPT, 0, SID, Xid(6)), &[]), block("accept"));
}

#[test]
fn announcements_are_absolute() {
    with_frame("max-conn-data", Mode::Multi, |frame| assert_eq!(read_varints(frame.body, ["max"]), Ok([6_291_456])));
    assert_eq!(with_varints(HeadBuf::new(kind::MAX_CONN_DATA, 0), &[6_291_456]), block("max-conn-data"));

    with_frame("max-session", Mode::Multi, |frame| assert_eq!(read_varints(frame.body, ["a", "b"]), Ok([1_572_864, 1536])));
    assert_eq!(with_varints(session_head(kind::MAX_SESSION, 0, SID), &[1_572_864, 1536]), block("max-session"));

    with_frame("max-stream", Mode::Multi, |frame| assert_eq!(read_varints(frame.body, ["max"]), Ok([393_216])));
    assert_eq!(with_varints(exchange_head(kind::MAX_STREAM, 0, SID, Xid(6)), &[393_216]), block("max-stream"));

    for (label, counts) in [("ack-opener", [1, 2]), ("ack-acceptor", [2, 2]), ("ack-last", [2, 2])] {
        with_frame(label, Mode::Multi, |frame| assert_eq!(read_varints(frame.body, ["received", "sent"]), Ok(counts), "{label}"));
        assert_eq!(with_varints(session_head(kind::ACK, 0, SID), &counts), block(label), "{label}");
    }
}

#[test]
fn keepalive_and_ends_are_small() {
    for (label, of) in [("ping", kind::PING), ("pong", kind::PONG)] {
        with_frame(label, Mode::Multi, |frame| assert_eq!((frame.kind, frame.body), (of, &15_000_000u64.to_le_bytes()[..])));
        assert_eq!(frame_of(HeadBuf::new(of, 0), &15_000_000u64.to_le_bytes()), block(label));
    }
    with_frame("s-close", Mode::Multi, |frame| assert_eq!((frame.kind, frame.body), (kind::S_CLOSE, &[][..])));
    assert_eq!(frame_of(session_head(kind::S_CLOSE, 0, SID), &[]), block("s-close"));
    with_frame("s-close-done", Mode::Multi, |frame| assert_eq!(read_varints(frame.body, ["untaken"]), Ok([0])));
    assert_eq!(with_varints(session_head(kind::S_CLOSE_DONE, 0, SID), &[0]), block("s-close-done"));
    let goaway = with_frame("goaway", Mode::Multi, |frame| GoAway::read(frame.body).unwrap());
    assert_eq!(goaway, GoAway { deadline_ms: 1000, reason: Reason::new(Code::NO_ERROR, "") });
    assert_eq!(frame_of(HeadBuf::new(kind::GOAWAY, 0), &written(|out| goaway.write(out))), block("goaway"));
    with_frame("goaway-ack", Mode::Multi, |frame| assert_eq!(read_varints(frame.body, ["sessions"]), Ok([1])));
    assert_eq!(with_varints(HeadBuf::new(kind::GOAWAY_ACK, 0), &[1]), block("goaway-ack"));
    let close = with_frame("conn-close", Mode::Multi, |frame| Reason::read(frame.body).unwrap());
    assert_eq!(close, Reason::new(Code::NO_ERROR, ""));
    assert_eq!(frame_of(HeadBuf::new(kind::CONN_CLOSE, 0), &written(|out| close.write(out))), block("conn-close"));
}

/// No block stands there unread: whatever is no varint and no preface is one frame, of a type that the table of §3 has.
#[test]
fn every_block_is_a_frame_of_the_table() {
    let document = include_str!("../../docs/PROTOCOL.md");
    for label in blocks().into_keys().filter(|label| *label != "preface" && !label.starts_with("varint-")) {
        let mode = if label.ends_with("-single") { Mode::Single } else { Mode::Multi };
        let kind = with_frame(label, mode, |frame| frame.kind);
        assert!(document.contains(&format!("| `{kind:02X}` | ")), "§3 lacks the type of `{label}`");
    }
}

#[test]
fn the_table_of_codes_is_complete() {
    let document = include_str!("../../docs/PROTOCOL.md");
    for (code, name) in Code::TABLE {
        assert!(document.contains(&format!("| {} | {name} |", code.0)), "§9 lacks {name}");
    }
}

/// One end of the conversation.
struct End {
    connection: Connection,
    out: Outbox,
    session: Session<()>,
    input: Input,
}

impl End {
    fn new(side: Side) -> Self {
        let handshake = Handshake { side, mode: Mode::Multi, modes: vec![Mode::Multi], codecs: vec![1] };
        let limits = Limits::default();
        Self {
            connection: Connection::new(handshake, limits.clone(), Time::default()),
            out: Outbox::new(limits.connection_window),
            session: Session::new(side, limits.session()),
            input: Input::new(4096),
        }
    }

    /// What it has to say, which must be these blocks of the document.
    fn says(&mut self, labels: &[&str]) -> Vec<u8> {
        self.connection.flush(&mut self.out);
        self.session.flush(&mut self.out);
        while let Some((_, lane)) = self.out.next_session() {
            self.session.transmit(lane, &mut self.out);
        }
        let (mut output, mut bytes) = (Output::default(), Vec::new());
        self.connection.take_batch(&mut self.out, &mut output);
        output.slices(0, usize::MAX, |slice| bytes.extend_from_slice(slice));
        let expected: Vec<u8> = labels.iter().flat_map(|label| block(label)).collect();
        assert_eq!(hex(&bytes), hex(&expected), "{labels:?}");
        bytes
    }

    fn hears(&mut self, bytes: &[u8]) -> Vec<SessionEvent> {
        let mut events = Vec::new();
        self.input.space()[..bytes.len()].copy_from_slice(bytes);
        self.input.advance(bytes.len());
        while let Some(event) = self.connection.next_event(Time::default(), &mut self.input).expect("the peer keeps the rules") {
            match event {
                ConnectionEvent::SessionOpened { sid, open } => {
                    let accept = SessionAccept { codec: 1, windows: windows(), methods: None };
                    self.connection.accept(sid, SessionSlot(0), &accept);
                    self.attach(open.windows);
                }
                ConnectionEvent::SessionAccepted { accept, .. } => self.attach(accept.windows),
                ConnectionEvent::SessionRejected { .. } => panic!("the session is accepted"),
                ConnectionEvent::Frame { frame, .. } => {
                    events.extend(self.session.handle_frame(&frame, Time::default(), || ()).expect("the peer keeps the rules"));
                }
                // The handshake is over, or there was nothing for the session.
                _ => {}
            }
        }
        self.connection.flush(&mut self.out);
        events
    }

    fn attach(&mut self, granted: Windows) {
        self.session.granted(granted);
        self.session.attach(Link { slot: SessionSlot(0), sid: SID });
    }

    fn calls(&mut self, name: &str, timeout: Option<Duration>, body: &[u8], answer: AnswerKind) -> ExchangeKey {
        let command = OpenCommand { method: rank(name), timeout, body: body.to_vec().into(), more: false, answer };
        self.session.open_now(command, (), &mut self.out).expect("the session is open")
    }
}

fn opened(events: &[SessionEvent]) -> ExchangeKey {
    match events {
        [SessionEvent::Opened { key, .. }] => *key,
        other => panic!("{other:?} instead of a call"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x} ")).collect()
}

/// The conversation of §13.1, from the preface to CONN_CLOSE.
#[test]
fn two_real_ends_hold_the_conversation_of_the_document() {
    let (mut client, mut server) = (End::new(Side::Initiator), End::new(Side::Acceptor));
    client.connection.open(SessionSlot(0), &session_open()).expect("the mode allows it");
    server.hears(&client.says(&["preface", "hello", "s-open"]));
    client.hears(&server.says(&["preface", "hello-ack", "s-accept"]));

    let get = client.calls("get", None, b"\x03key", AnswerKind::One);
    let call = opened(&server.hears(&client.says(&["open-get"])));
    server.session.answer_now(call, b"\x01\x05value".to_vec().into(), false, &mut server.out);
    client.hears(&server.says(&["data-get"]));
    assert_eq!(client.session.take_answer(get), Answer::Message(b"\x01\x05value".to_vec()));

    client.session.close();
    server.hears(&client.says(&["s-close", "ack-opener"]));
    client.hears(&server.says(&["s-close", "ack-acceptor", "s-close-done"]));
    server.hears(&client.says(&["ack-last", "s-close-done"]));
    assert!(client.session.is_finished() && server.session.is_finished());

    client.connection.forget(SID.unwrap_or(Sid(0)));
    server.connection.forget(SID.unwrap_or(Sid(0)));
    server.connection.go_away(&GoAway { deadline_ms: 1000, reason: Reason::new(Code::NO_ERROR, "") });
    client.hears(&server.says(&["goaway"]));
    server.hears(&client.says(&["goaway-ack"]));
    assert!(server.connection.is_drained());
}

/// The further exchanges of §13.2, in one session that lives on.
#[test]
fn two_real_ends_write_the_other_exchanges_of_the_document() {
    let (mut client, mut server) = (End::new(Side::Initiator), End::new(Side::Acceptor));
    client.connection.open(SessionSlot(0), &session_open()).expect("the mode allows it");
    server.hears(&client.says(&["preface", "hello", "s-open"]));
    client.hears(&server.says(&["preface", "hello-ack", "s-accept"]));
    let get = client.calls("get", None, b"\x03key", AnswerKind::One);
    let call = opened(&server.hears(&client.says(&["open-get"])));
    server.session.answer_now(call, b"\x01\x05value".to_vec().into(), false, &mut server.out);
    client.hears(&server.says(&["data-get"]));
    client.session.take_answer(get);

    let put = client.calls("put", Some(Duration::from_millis(50)), b"\x03key\x05value", AnswerKind::One);
    let call = opened(&server.hears(&client.says(&["open-put"])));
    server.session.answer_now(call, vec![1].into(), true, &mut server.out);
    client.hears(&server.says(&["data-put-error"]));
    assert_eq!(client.session.take_answer(put), Answer::AppError(vec![1]));

    let log = client.calls("log", None, b"\x02hi", AnswerKind::None);
    let call = opened(&server.hears(&client.says(&["open-log"])));
    assert_eq!(client.session.release_sent(log), Ok(true));
    server.session.handler_done(call);
    server.says(&[]);

    let watch = client.calls("watch", None, b"\x01k", AnswerKind::Many);
    let call = opened(&server.hears(&client.says(&["open-watch"])));
    server.session.accept(call);
    let mut batch = Batch::new();
    client.hears(&server.says(&["accept"]));
    assert_eq!(client.session.take_answer(watch), Answer::Stream);
    batch.push(b"\x02k1");
    server.session.send(call, &mut batch, false);
    client.hears(&server.says(&["data-watch-items"]));
    assert_eq!((client.session.take_items(watch, &mut batch), batch.front()), (Items::Ready, Some(&b"\x02k1"[..])));
    server.session.handler_done(call);
    client.hears(&server.says(&["data-watch-end"]));
    assert_eq!(client.session.take_items(watch, &mut batch), Items::Ended);
    client.session.release(watch);

    // A message in pieces: an outbox whose peer takes frames of 512 bytes.
    client.out = Outbox::new(4_194_304);
    client.out.open(512, 4_194_304);
    let put = client.calls("put", None, &[0x61; 600], AnswerKind::One);
    let call = opened(&server.hears(&client.says(&["open-pieces", "data-pieces"])));
    server.session.answer_now(call, Vec::new().into(), false, &mut server.out);
    server.session.flush(&mut server.out);
    let mut output = Output::default();
    server.connection.take_batch(&mut server.out, &mut output);
    client.hears(output.single().expect("nothing here is shared"));
    assert_eq!(client.session.take_answer(put), Answer::Message(Vec::new()));

    let get = client.calls("get", None, b"\x03key", AnswerKind::One);
    let mut output = Output::default();
    client.connection.take_batch(&mut client.out, &mut output);
    let call = opened(&server.hears(output.single().expect("nothing here is shared")));
    client.session.release(get);
    server.hears(&client.says(&["cancel"]));
    server.session.handler_done(call);
    client.hears(&server.says(&["reset"]));
    assert_eq!((client.session.live(), server.session.live()), (0, 0));
    let (sent, received) = server.session.counts();
    assert_eq!(client.session.counts(), (received, sent));
}
