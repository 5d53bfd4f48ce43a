//! The vectors against the encoders and decoders, both ways. The files are data by hand; nothing here made them.

use std::fmt::Debug;

use rpc::__private::Client;
use rpc::{Code, Codec, Metadata, MethodKind};
use rpc_core::id::{Sid, Xid};
use rpc_core::wire::frame::{
    Abort, Beside, GoAway, Mode, Open, Reason, Reset, exchange_head, flag, kind, read_cancel, read_varints, session_head,
};
use rpc_core::wire::header::Scope;
use rpc_core::wire::hello::{Hello, Reject, SessionAccept, SessionOpen, Windows};
use rpc_core::wire::{DecodeError, Frame, Head, HeadBuf, RawFrame, varint};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::runner::script::{files, folder, hex, read};
use crate::runner::stand::{Back, ConformanceClient, Refusal, limits};

fn file(name: &str) -> Value {
    read(&folder().join("vectors").join(format!("{name}.json")))
}

/// The vectors of a file under a key; there are some.
fn vectors(file: &Value, key: &str) -> Vec<Value> {
    let vectors = file[key].as_array().expect("a list of vectors").clone();
    assert!(!vectors.is_empty());
    vectors
}

fn text<'v>(vector: &'v Value, key: &str) -> &'v str {
    vector[key].as_str().unwrap_or_else(|| panic!("{vector}: no text `{key}`"))
}

fn number(vector: &Value, key: &str) -> u64 {
    vector[key].as_u64().unwrap_or_else(|| panic!("{vector}: no number `{key}`"))
}

fn numbers(value: &Value) -> Vec<u64> {
    value.as_array().expect("a list").iter().map(|value| value.as_u64().expect("a number")).collect()
}

fn bytes(vector: &Value, key: &str) -> Vec<u8> {
    hex(text(vector, key))
}

/// A byte of a frame's head.
fn byte(vector: &Value, key: &str) -> u8 {
    bytes(vector, key)[0]
}

/// The class of an error, as the files call it.
fn class(error: &DecodeError) -> &'static str {
    match error {
        DecodeError::Truncated { .. } => "truncated",
        DecodeError::NonMinimal { .. } => "not minimal",
        DecodeError::Range { .. } => "range",
        DecodeError::Utf8 { .. } => "not UTF-8",
        DecodeError::UnknownKey { .. } => "unknown key",
        DecodeError::Missing { .. } => "missing",
        _ => "another",
    }
}

#[test]
fn each_file_of_vectors_is_read_by_a_test() {
    let names: Vec<_> = files("vectors").iter().map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(names, ["frames", "heads", "lists", "messages", "metadata", "service", "varints"]);
}

#[test]
fn varints() {
    let file = file("varints");
    for vector in vectors(&file, "valid") {
        let (value, bytes) = (text(&vector, "value").parse().unwrap(), bytes(&vector, "hex"));
        let mut rest = &bytes[..];
        assert_eq!(varint::read(&mut rest, "x"), Ok(value), "{vector}");
        assert_eq!(rest, b"", "{vector}");
        let mut written = Vec::new();
        varint::push(value, &mut written);
        assert_eq!(written, bytes, "{vector}");
    }
    for vector in vectors(&file, "invalid") {
        let error = varint::read(&mut &bytes(&vector, "hex")[..], "x").unwrap_err();
        assert_eq!(class(&error), text(&vector, "error"), "{vector}");
    }
}

#[test]
fn heads() {
    let file = file("heads");
    for vector in vectors(&file, "valid") {
        let (bytes, body) = (bytes(&vector, "hex"), number(&vector, "body"));
        let head = Head::read(&bytes).unwrap();
        assert_eq!((head.kind, u64::from(head.len)), (byte(&vector, "type"), body + 1), "{vector}");
        let raw = RawFrame { kind: head.kind, flags: bytes[4], rest: &[] };
        assert_eq!(raw.flags, byte(&vector, "flags"), "{vector}");
        assert_eq!(json!(raw.is_sequenced()), vector["sequenced"], "{vector}");
        assert_eq!(json!(raw.is_ignorable()), vector["ignorable"], "{vector}");
        let scope = match raw.scope() {
            Scope::Connection => "connection",
            Scope::Session => "session",
            Scope::Exchange => "exchange",
        };
        assert_eq!(scope, text(&vector, "scope"), "{vector}");
        assert_eq!(HeadBuf::new(raw.kind, raw.flags).finish(body as usize), bytes, "{vector}");
    }
    for vector in vectors(&file, "invalid") {
        assert_eq!(Head::read(&bytes(&vector, "hex")), None, "{vector}");
    }
}

/// A frame's fields, as the files have them.
fn fields(frame: &Frame<'_>) -> Result<Value, DecodeError> {
    let shown = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    let reason = |reason: &Reason| (reason.code.0, reason.text.clone());
    Ok(match frame.kind {
        kind::PING | kind::PONG => json!({"token": shown(frame.body)}),
        kind::MAX_CONN_DATA | kind::MAX_STREAM => json!({"max": read_varints(frame.body, ["max"])?[0]}),
        kind::GOAWAY => {
            let GoAway { deadline_ms, reason: why } = GoAway::read(frame.body)?;
            json!({"deadline_ms": deadline_ms, "code": reason(&why).0, "text": reason(&why).1})
        }
        kind::GOAWAY_ACK => json!({"sessions": read_varints(frame.body, ["sessions"])?[0]}),
        kind::CONN_CLOSE => {
            let why = Reason::read(frame.body)?;
            json!({"code": reason(&why).0, "text": reason(&why).1})
        }
        kind::ACK => {
            let [received, sent] = read_varints(frame.body, ["received", "sent"])?;
            json!({"rx_next": received, "tx_next": sent})
        }
        kind::MAX_SESSION => {
            let [bytes, exchanges] = read_varints(frame.body, ["bytes", "exchanges"])?;
            json!({"max_bytes": bytes, "max_exchanges": exchanges})
        }
        kind::S_ABORT => {
            let Abort { rx_next, reason: why } = Abort::read(frame.body)?;
            json!({"rx_next": rx_next, "code": reason(&why).0, "text": reason(&why).1})
        }
        kind::S_CLOSE_DONE => json!({"untaken": read_varints(frame.body, ["untaken"])?[0]}),
        kind::S_CLOSE | kind::ACCEPT => json!({}),
        kind::OPEN => {
            let (Open { method, timeout_ms, total }, Beside { urgency, metadata }, message) = Open::read(frame)?;
            let (metadata, message) = (shown(metadata), shown(message));
            json!({"method": method, "timeout_ms": timeout_ms, "urgency": urgency, "metadata": metadata, "total": total,
                "message": message})
        }
        kind::DATA => json!({"message": shown(frame.body)}),
        kind::RESET => {
            let Reset { final_offset, reason: why } = Reset::read(frame.body)?;
            json!({"final_offset": final_offset, "code": reason(&why).0, "text": reason(&why).1})
        }
        kind::CANCEL => json!({"code": read_cancel(frame.body)?.0}),
        other => panic!("{other:02x} is a list, or no type"),
    })
}

/// A frame from its fields.
fn written(vector: &Value) -> Vec<u8> {
    let (kind, flags, fields) = (byte(vector, "type"), byte(vector, "flags"), &vector["fields"]);
    let sid = (text(vector, "mode") == "multi").then(|| Sid(vector["sid"].as_u64().unwrap_or_default()));
    let mut head = match (RawFrame { kind, flags, rest: &[] }).scope() {
        Scope::Connection => HeadBuf::new(kind, flags),
        Scope::Session => session_head(kind, flags, sid),
        Scope::Exchange => exchange_head(kind, flags, sid, Xid(number(vector, "xid"))),
    };
    let reason = || Reason::new(Code(number(fields, "code") as u32), text(fields, "text"));
    let mut body = Vec::new();
    let varints: &[&str] = match kind {
        kind::MAX_CONN_DATA | kind::MAX_STREAM => &["max"],
        kind::GOAWAY_ACK => &["sessions"],
        kind::ACK => &["rx_next", "tx_next"],
        kind::MAX_SESSION => &["max_bytes", "max_exchanges"],
        kind::S_CLOSE_DONE => &["untaken"],
        kind::CANCEL => &["code"],
        _ => &[],
    };
    varints.iter().for_each(|field| head.varint(number(fields, field)));
    match kind {
        kind::PING | kind::PONG => body = bytes(fields, "token"),
        kind::GOAWAY => GoAway { deadline_ms: number(fields, "deadline_ms"), reason: reason() }.write(&mut body),
        kind::CONN_CLOSE => reason().write(&mut body),
        kind::S_ABORT => Abort { rx_next: number(fields, "rx_next"), reason: reason() }.write(&mut body),
        kind::RESET => Reset { final_offset: number(fields, "final_offset"), reason: reason() }.write(&mut body),
        kind::OPEN => {
            let (timeout_ms, total) = (fields["timeout_ms"].as_u64(), fields["total"].as_u64());
            let open = Open { method: number(fields, "method"), timeout_ms, total };
            let beside = Beside { urgency: number(fields, "urgency") as u8, metadata: &bytes(fields, "metadata") };
            match beside.is_nothing() {
                true => open.write(&mut head),
                false => open.write_with(beside, &mut head, &mut body),
            }
            body.extend(bytes(fields, "message"));
        }
        kind::DATA => body = bytes(fields, "message"),
        _ => {}
    }
    [head.finish(body.len()), &body].concat()
}

/// The type of a frame by its name.
fn kind_of(name: &str) -> u8 {
    let document = include_str!("../../docs/PROTOCOL.md");
    let row = document.lines().find(|line| line.starts_with("| `") && line.contains(&format!("` | {name} |")));
    hex(&row.unwrap_or_else(|| panic!("§3 has no {name}"))[3..5])[0]
}

fn cut<'b>(bytes: &'b [u8], vector: &Value) -> Result<Frame<'b>, DecodeError> {
    let head = Head::read(bytes).expect("a frame has a head");
    assert_eq!(head.len as usize, bytes.len() - 4, "{vector}: the length covers the frame");
    let mode = if text(vector, "mode") == "multi" { Mode::Multi } else { Mode::Single };
    Frame::read(RawFrame { kind: head.kind, flags: bytes[4], rest: &bytes[5..] }, mode)
}

#[test]
fn frames() {
    let file = file("frames");
    for vector in vectors(&file, "valid") {
        let bytes = bytes(&vector, "hex");
        let frame = cut(&bytes, &vector).unwrap();
        assert_eq!((frame.kind, frame.flags), (byte(&vector, "type"), byte(&vector, "flags")), "{vector}");
        assert_eq!(frame.kind, kind_of(text(&vector, "name")), "{vector}");
        assert_eq!(frame.sid.0, vector["sid"].as_u64().unwrap_or_default(), "{vector}");
        assert_eq!(frame.xid.0, vector["xid"].as_u64().unwrap_or_default(), "{vector}");
        assert_eq!(fields(&frame).unwrap(), vector["fields"], "{vector}");
        assert_eq!(written(&vector), bytes, "{vector}");
        assert_eq!(vector["fields"]["total"].is_number(), frame.kind == kind::OPEN && !frame.has(flag::EOM), "{vector}");
    }
    for vector in vectors(&file, "invalid") {
        let bytes = bytes(&vector, "hex");
        let error = cut(&bytes, &vector).and_then(|frame| fields(&frame)).expect_err(&vector.to_string());
        assert_eq!((class(&error), bytes[0]), (text(&vector, "error"), kind_of(text(&vector, "name"))), "{vector}");
    }
}

/// A body that is a list: its fields as the files have them, and its bytes as the encoder writes them.
fn list(name: &str, body: &[u8]) -> Result<(Value, Vec<u8>), DecodeError> {
    let mut out = Vec::new();
    let windows = |w: Windows| json!([w.stream, w.session, w.exchanges, w.message]);
    let hash = |hash: &u64| format!("{hash:016x}");
    let fields = match name {
        "HELLO" => {
            let hello = Hello::read(body)?;
            hello.write(&mut out);
            json!({"versions": [hello.versions.0, hello.versions.1], "mode": u8::from(hello.mode == Mode::Multi),
                "max_frame": hello.max_frame, "codecs": hello.codecs, "units": hello.units,
                "required_units": hello.required_units, "connection_window": hello.connection_window,
                "keepalive_ms": [hello.keepalive_interval_ms, hello.keepalive_timeout_ms], "sessions": hello.sessions})
        }
        "S_OPEN" => {
            let open = SessionOpen::read(body)?;
            open.write(&mut out);
            json!({"service": open.service, "fingerprint": hash(&open.fingerprint), "codecs": open.codecs,
                "windows": windows(open.windows), "weight": open.weight})
        }
        "S_ACCEPT" => {
            let accept = SessionAccept::read(body)?;
            accept.write(&mut out);
            let methods: Option<Vec<String>> = accept.methods.map(|methods| methods.iter().map(hash).collect());
            json!({"codec": accept.codec, "windows": windows(accept.windows), "methods": methods})
        }
        "HELLO_REJECT" | "S_REJECT" => {
            let reject = Reject::read(body)?;
            reject.write(&mut out);
            json!({"code": reject.reason.code.0, "text": reject.reason.text, "codecs": reject.codecs})
        }
        other => panic!("`{other}` is no list"),
    };
    Ok((fields, out))
}

#[test]
fn lists() {
    let file = file("lists");
    for vector in vectors(&file, "valid") {
        let bytes = bytes(&vector, "hex");
        let (fields, written) = list(text(&vector, "list"), &bytes).unwrap();
        assert_eq!(fields, vector["fields"], "{vector}");
        assert_eq!(json!(written == bytes), vector["exact"], "{vector}");
    }
    for vector in vectors(&file, "invalid") {
        let error = list(text(&vector, "list"), &bytes(&vector, "hex")).unwrap_err();
        assert_eq!(class(&error), text(&vector, "error"), "{vector}");
    }
}

#[test]
fn metadata() {
    let (file, limits) = (file("metadata"), limits());
    let read = |encoded: &[u8]| Metadata::read(encoded, limits.metadata_bytes as usize, limits.metadata_entries as usize);
    for vector in vectors(&file, "valid") {
        let bytes = bytes(&vector, "hex");
        let pairs: Vec<(String, Vec<u8>)> =
            vector["pairs"].as_array().unwrap().iter().map(|pair| (text(pair, "key").into(), hex(text(pair, "value")))).collect();
        let metadata = read(&bytes).unwrap();
        let came: Vec<_> = metadata.iter().map(|(key, value)| (key.to_owned(), value.to_vec())).collect();
        assert_eq!(came, pairs, "{vector}");
        let mut made = Metadata::new();
        pairs.iter().for_each(|(key, value)| made.insert(key, value).unwrap());
        assert_eq!(made.encoded(), bytes, "{vector}");
    }
    for vector in vectors(&file, "invalid") {
        let error = read(&bytes(&vector, "hex")).expect_err(&vector.to_string());
        assert_eq!(u64::from(error.code().0), number(&vector, "code"), "{vector}");
    }
}

/// FNV-1a, by which §5.1 names methods.
fn fnv(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[test]
fn service() {
    let (file, info) = (file("service"), ConformanceClient::info());
    let (name, methods) = (text(&file, "name"), vectors(&file, "methods"));
    assert_eq!((name, methods.len()), (info.name, info.methods.len()));
    let mut hashes = Vec::new();
    for (rank, (vector, method)) in methods.iter().zip(info.methods).enumerate() {
        let hash = u64::from_str_radix(text(vector, "hash"), 16).unwrap();
        assert_eq!((number(vector, "rank"), text(vector, "name"), hash), (rank as u64, method.name, method.hash));
        assert_eq!(hash, fnv(format!("{name}/{}", method.name).bytes()), "{vector}");
        let kind = match method.kind {
            MethodKind::Unary => "unary",
            MethodKind::ServerStream => "items down",
            MethodKind::ClientStream => "items up",
            MethodKind::BidiStream => "items both ways",
            MethodKind::OneWay => "one way",
        };
        assert_eq!(text(vector, "kind"), kind, "{vector}");
        hashes.push(hash);
    }
    assert!(hashes.is_sorted());
    let fingerprint = u64::from_str_radix(text(&file, "fingerprint"), 16).unwrap();
    assert_eq!(fingerprint, info.fingerprint);
    assert_eq!(fingerprint, fnv(hashes.iter().flat_map(|hash| hash.to_le_bytes())));
}

/// One value in both codecs, both ways.
#[track_caller]
fn is<T: Serialize + DeserializeOwned + PartialEq + Debug>(vector: &Value, value: &T) {
    for (codec, key) in [(Codec::Postcard, "postcard"), (Codec::Json, "json")] {
        let bytes = bytes(vector, key);
        assert_eq!(&codec.decode::<T>(&bytes, None).unwrap_or_else(|error| panic!("{vector}: {error}")), value, "{vector}");
        let mut written = Vec::new();
        codec.encode(value, &mut written).unwrap();
        assert_eq!(written, bytes, "{vector}: {key}");
    }
}

fn fails<T: DeserializeOwned>(vector: &Value) -> bool {
    let codec = if text(vector, "codec") == "json" { Codec::Json } else { Codec::Postcard };
    codec.decode::<T>(&bytes(vector, "hex"), None).is_err()
}

#[test]
fn messages() {
    let file = file("messages");
    for vector in vectors(&file, "valid") {
        let value = text(&vector, "value");
        match text(&vector, "as") {
            "nothing" => is(&vector, &()),
            "text" => is(&vector, &value.to_owned()),
            "text arguments" => is(&vector, &(value.to_owned(),)),
            "number" => is(&vector, &value.parse::<u64>().unwrap()),
            "number arguments" => is(&vector, &(value.parse::<u64>().unwrap(),)),
            "bytes arguments" => is(&vector, &(hex(value),)),
            "optional bytes" => is(&vector, &(value != "none").then(|| hex(value))),
            "refusal" => {
                let refusal = [Refusal::Plain, Refusal::Because(7)].into_iter().find(|it| format!("{it:?}") == value);
                is(&vector, &refusal.unwrap_or_else(|| panic!("{vector}: which error?")));
            }
            "back" => {
                let fault = Back::Fault { code: 23, may_have_run: false };
                let backs = [Back::Answer("hi".into()), fault, Back::Rejected(24)];
                let back = backs.into_iter().find(|it| format!("{it:?}") == value);
                is(&vector, &back.unwrap_or_else(|| panic!("{vector}: which outcome?")));
            }
            other => panic!("{vector}: `{other}` is no type"),
        }
    }
    for vector in vectors(&file, "invalid") {
        let refused = match text(&vector, "as") {
            "nothing" => fails::<()>(&vector),
            "text" => fails::<String>(&vector),
            "text arguments" => fails::<(String,)>(&vector),
            "number" => fails::<u64>(&vector),
            "refusal" => fails::<Refusal>(&vector),
            "back" => fails::<Back>(&vector),
            other => panic!("{vector}: `{other}` is no type"),
        };
        assert!(refused, "{vector}");
    }
}

#[test]
fn the_limits_of_the_stand_are_those_of_the_document() {
    let readme = include_str!("../../conformance/README.md");
    let Windows { stream, session, exchanges, message } = limits().windows();
    assert_eq!([stream, session, exchanges, message].to_vec(), numbers(&file("lists")["valid"][10]["fields"]["windows"]));
    for number in [stream, session, exchanges, message, limits().max_frame.into(), limits().connection_window] {
        assert!(readme.contains(&format!("| {number} |")), "the README lacks {number}");
    }
}
