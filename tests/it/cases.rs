//! One list of cases for every way to reach a service: over TCP with many sessions or one, over Unix sockets and FIFOs, over
//! memory, and directly; over some of these in every codec; and reversed, where the side that listens calls the side that
//! connected.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use rpc::tls::{ClientTls, ServerTls};
use rpc::{Code, Codec, Connected, Connection, Error, FaultKind, Limits, Peer, Server};
use tokio::sync::mpsc;

use crate::certificates::Authority;
use crate::harness::{eventually, limits, soon};
use crate::lab::{
    Bench, Event, Events, Form, GateError, LONG, Lab, LabClient, LabError, LabServer, Maps, Record, Scalars, pattern,
};
use crate::tls::Streams;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(unix), allow(dead_code, reason = "some are there on Unix alone"))]
enum Target {
    Tcp,
    TcpSingle,
    Memory,
    #[cfg(windows)]
    Pipe,
    /// The side that listens calls, over TCP and over memory.
    TcpReversed,
    MemoryReversed,
    Unix,
    UnixSingle,
    UnixReversed,
    Fifo,
    FifoSingle,
    FifoReversed,
    Local,
    Layered,
    /// With TLS, over TCP and over a listener of one's own.
    Tls,
    TlsStream,
    UnixTls,
    FifoTls,
}

impl Target {
    fn is_memory(self) -> bool {
        matches!(self, Self::Memory | Self::MemoryReversed)
    }

    fn is_reversed(self) -> bool {
        matches!(self, Self::TcpReversed | Self::MemoryReversed | Self::UnixReversed | Self::FifoReversed)
    }

    /// One session alone on its connection.
    fn is_single(self) -> bool {
        matches!(self, Self::TcpSingle | Self::UnixSingle | Self::FifoSingle)
    }

    /// Whether a handler can call its caller back: both sides offer the service then.
    fn calls_back(self) -> bool {
        !self.is_single() && self != Self::Local
    }

    fn endpoint(self) -> String {
        #[cfg(windows)]
        if self == Self::Pipe {
            return crate::windows_pipes::fresh();
        }
        static NAMES: AtomicU64 = AtomicU64::new(0);
        let n = NAMES.fetch_add(1, Ordering::Relaxed);
        let here = format!("cases-{}-{n}", std::process::id());
        match self {
            Self::Memory | Self::MemoryReversed => format!("mem://cases-{n}"),
            Self::Unix | Self::UnixReversed => format!("unix://{}", std::env::temp_dir().join(here).display()),
            Self::UnixSingle => format!("local://{here}"),
            Self::Fifo | Self::FifoSingle | Self::FifoReversed => format!("pipe://{here}"),
            Self::Tls => "tls://127.0.0.1:0".to_owned(),
            Self::UnixTls => format!("local://{here}?tls=localhost"),
            Self::FifoTls => format!("pipe://{here}?tls=localhost"),
            _ => "tcp://127.0.0.1:0".to_owned(),
        }
    }
}

/// A service and a client of it.
struct Rig {
    lab: LabClient,
    bench: Bench,
    events: Events,
    target: Target,
    codec: Codec,
    /// The side that listens, and the side that connected.
    _sides: Option<(Server, Connection)>,
}

impl Rig {
    async fn new(target: Target, codec: Codec) -> Self {
        Self::with(target, codec, Limits::default()).await
    }

    /// With other limits, on both sides.
    async fn with(target: Target, codec: Codec, limits: Limits) -> Self {
        let (bench, events) = Bench::new();
        let service = LabServer::new(bench.clone());
        let (lab, sides) = if target == Target::Local {
            (rpc::local(service), None)
        } else {
            let (lab, server, connection) = Self::connect(target, codec, limits, service).await;
            (lab, Some((server, connection)))
        };
        bench.set_downstream(lab.clone());
        Self { lab, bench, events, target, codec, _sides: sides }
    }

    async fn connect(target: Target, codec: Codec, limits: Limits, service: LabServer<Bench>) -> (LabClient, Server, Connection) {
        let (tell, mut told) = mpsc::unbounded_channel();
        let builder = Server::builder().limits(limits.clone());
        let server = match target {
            Target::Layered => builder.service(rpc::tower::layered(service.clone(), layers())),
            _ => builder.service(service.clone()),
        };
        let server = server.on_connection(move |connection| drop(tell.send(connection)));
        let authority = Authority::new("cases");
        let (clients, streams) = Streams::new();
        let secure = ServerTls::new().identity(authority.localhost());
        let server = match target {
            Target::Tls | Target::UnixTls | Target::FifoTls => server.tls(secure).listen(target.endpoint()).await.unwrap(),
            Target::TlsStream => server.tls(secure).serve(streams).unwrap(),
            _ => server.listen(target.endpoint()).await.unwrap(),
        };
        let builder = Connection::builder().limits(limits);
        let builder = match target {
            Target::Tls | Target::UnixTls | Target::FifoTls => builder.tls(ClientTls::new().authorities(authority.trusted())),
            Target::TlsStream => builder.tls(ClientTls::new().authorities(authority.trusted()).name("localhost")),
            _ => builder,
        };
        let connection = match target {
            // Postcard is what nobody asks for.
            _ if target.is_single() && codec == Codec::Postcard => builder.single_session(),
            _ if target.is_single() => builder.single_session().codecs([codec, Codec::Postcard]),
            Target::Tcp | Target::TcpReversed => builder.service(service).codecs([codec]),
            _ => builder.service(service),
        };
        let connection = match target {
            Target::TlsStream => {
                let (here, there) = tokio::io::duplex(64 * 1024);
                clients.send(there).unwrap();
                connection.open_over(Connected::new(here, Peer::new("odd://server"))).await.unwrap()
            }
            _ => connection.open(server.endpoint()).await.unwrap(),
        };
        let mut caller = connection.clone();
        if target.is_reversed() {
            caller = soon("the server is told of its connection", told.recv()).await.unwrap();
        }
        let session = match target {
            Target::Layered => caller.session().layer(layers()),
            _ if target.is_memory() => caller.session().codec(codec),
            _ => caller.session(),
        };
        (session.open().await.unwrap(), server, connection)
    }

    /// Whether what travels is JSON.
    fn json(&self) -> bool {
        self.codec == Codec::Json
    }

    /// Bytes that fill a message of `wire` bytes, or nearly so. JSON has a digit and a comma for each.
    fn filling(&self, wire: usize, seed: u64) -> Vec<u8> {
        if self.json() {
            pattern(wire.saturating_sub(3) / 2, seed).into_iter().map(|byte| byte % 10).collect()
        } else {
            pattern(wire, seed)
        }
    }

    /// The service and the session are as good as new.
    async fn still_works(&self) {
        assert_eq!(self.lab.text("still here").await.unwrap(), "STILL HERE");
        self.bench.idle().await;
    }
}

/// Layers that wait, keep time and limit, and let everything pass in the end.
fn layers() -> impl tower::Layer<rpc::tower::Inner, Service: rpc::tower::Stack> + Send + Sync + 'static {
    let waiting = tower::filter::AsyncFilterLayer::new(|request: rpc::Request| async move {
        tokio::task::yield_now().await;
        Ok::<_, rpc::tower::BoxError>(request)
    });
    tower::ServiceBuilder::new().timeout(2 * LONG).concurrency_limit(2000).layer(waiting)
}

async fn on<F: Future<Output = ()>>(target: Target, codec: Codec, case: impl FnOnce(Rig) -> F) {
    case(Rig::new(target, codec).await).await;
}

macro_rules! cases {
    ($($(#[$attr:meta])* $case:ident),* $(,)?) => {
        cases!(@target tcp, Tcp, Postcard, 2, $($(#[$attr])* $case,)*);
        cases!(@target tcp_on_one_thread, Tcp, Postcard, 1, $($(#[$attr])* $case,)*);
        cases!(@target tcp_single_session, TcpSingle, Postcard, 2, $($(#[$attr])* $case,)*);
        cases!(@target memory, Memory, Postcard, 2, $($(#[$attr])* $case,)*);
        #[cfg(windows)]
        cases!(@target pipe, Pipe, Postcard, 2, $($(#[$attr])* $case,)*);
        cases!(@target tcp_json, Tcp, Json, 2, $($(#[$attr])* $case,)*);
        cases!(@target tcp_single_session_json, TcpSingle, Json, 2, $($(#[$attr])* $case,)*);
        cases!(@target memory_json, Memory, Json, 2, $($(#[$attr])* $case,)*);
        cases!(@target through_layers, Layered, Postcard, 2, $($(#[$attr])* $case,)*);
        cases!(@target tls, Tls, Postcard, 2, $($(#[$attr])* $case,)*);
        cases!(@target tls_stream, TlsStream, Postcard, 2, $($(#[$attr])* $case,)*);
        cases!(@target tcp_reversed, TcpReversed, Postcard, 2, $($(#[$attr])* $case,)*);
        cases!(@target memory_reversed, MemoryReversed, Postcard, 2, $($(#[$attr])* $case,)*);
        cases!(@target tcp_reversed_json, TcpReversed, Json, 2, $($(#[$attr])* $case,)*);
        cases!(@target memory_reversed_json, MemoryReversed, Json, 2, $($(#[$attr])* $case,)*);
        #[cfg(unix)]
        cases!(@target unix_tls, UnixTls, Postcard, 2, $($(#[$attr])* $case,)*);
        #[cfg(all(unix, not(target_vendor = "apple")))]
        cases!(@target fifo_tls, FifoTls, Postcard, 2, $($(#[$attr])* $case,)*);
        #[cfg(unix)]
        cases!(@target unix, Unix, Postcard, 2, $($(#[$attr])* $case,)*);
        #[cfg(unix)]
        cases!(@target unix_single_session, UnixSingle, Postcard, 2, $($(#[$attr])* $case,)*);
        #[cfg(unix)]
        cases!(@target unix_reversed, UnixReversed, Postcard, 2, $($(#[$attr])* $case,)*);
        #[cfg(all(unix, not(target_vendor = "apple")))]
        cases!(@target fifo, Fifo, Postcard, 2, $($(#[$attr])* $case,)*);
        #[cfg(all(unix, not(target_vendor = "apple")))]
        cases!(@target fifo_single_session, FifoSingle, Postcard, 2, $($(#[$attr])* $case,)*);
        #[cfg(all(unix, not(target_vendor = "apple")))]
        cases!(@target fifo_reversed, FifoReversed, Postcard, 2, $($(#[$attr])* $case,)*);
        mod local {
            $(#[test] $(#[$attr])* fn $case() {
                crate::harness::run(super::on(super::Target::Local, rpc::Codec::Postcard, super::$case));
            })*
        }
    };
    (@target $module:ident, $target:ident, $codec:ident, $threads:literal, $($(#[$attr:meta])* $case:ident,)*) => {
        mod $module {
            $(#[test] $(#[$attr])* fn $case() {
                crate::harness::run_on($threads, super::on(super::Target::$target, rpc::Codec::$codec, super::$case));
            })*
        }
    };
}

cases! {
    borrowed_arguments_travel,
    bytes_travel_in_every_form,
    text_with_every_kind_of_escape_travels,
    every_byte_travels,
    enums_travel_in_every_form,
    numbers_travel_at_their_edges,
    maps_travel_with_keys_of_every_kind,
    an_option_in_an_option_is_what_its_codec_says,
    what_a_codec_does_not_have_fails_at_its_call_alone,
    messages_from_nothing_to_the_limit_arrive_whole,
    sixty_four_calls_at_once_each_get_their_own_answer,
    more_calls_than_the_peer_grants_all_get_their_turn,
    an_application_error_is_typed,
    errors_of_other_calls_are_lifted_and_foreign_ones_converted,
    a_stream_yields_every_item_in_order_and_ends,
    a_stream_that_fails_yields_its_items_then_the_error,
    a_stream_can_be_refused_before_its_first_item,
    large_items_arrive_whole,
    a_dropped_stream_stops_its_producer,
    items_go_up_and_one_answer_comes_back,
    a_handler_may_answer_before_the_items_end,
    items_go_both_ways,
    one_item_up_is_one_item_down_without_a_batch,
    an_endless_source_stops_with_its_call,
    one_way_calls_arrive,
    a_timeout_ends_the_call_and_drops_its_handler,
    a_timeout_of_zero_starts_nothing,
    a_timeout_ends_a_stream_that_hangs,
    a_deadline_is_inherited_by_calls_of_the_handler,
    a_dropped_call_drops_its_handler,
    a_dropped_call_drops_what_its_handler_called,
    work_that_a_handler_spawned_learns_of_the_end,
    a_call_that_was_never_polled_sends_nothing,
    the_context_tells_peer_and_deadline,
    a_panic_in_a_handler_fails_its_call_alone,
    a_panic_in_a_stream_fails_it_alone,
    a_fault_of_the_handler_keeps_its_class,
    a_handler_that_ran_cannot_promise_that_nothing_was_started,
    code_over_the_trait_takes_service_and_client,
    metadata_reach_the_handler_and_nobody_behind_it,
    metadata_go_with_arguments_of_every_length_and_with_streams,
    too_much_metadata_is_a_fault_that_names_the_key_and_nothing_is_sent,
    a_handler_calls_its_caller_back,
    calls_go_back_and_forth_through_many_levels,
    many_calls_go_back_and_forth_at_once,
    a_stream_passes_through_calls_that_call_back,
    the_smallest_windows_let_calls_call_back,
    what_nobody_reads_does_not_hold_up_calls_that_call_back,
}

/// A channel's items as a stream.
pub(crate) fn received<T: Send + 'static>(items: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send + 'static {
    stream::unfold(items, |mut items| async move { Some((items.recv().await?, items)) })
}

fn record() -> Record {
    let counts = (0..20).map(|n| (format!("count-{n}"), n)).collect();
    Record { id: 41, name: "rö".into(), tags: vec![String::new(), "b".into()], counts }
}

async fn borrowed_arguments_travel(rig: Rig) {
    let text = String::from("größe");
    assert_eq!(rig.lab.text(&text).await.unwrap(), "GRÖSSE");
    assert_eq!(rig.lab.text("").await.unwrap(), "");
    assert_eq!(rig.lab.slice(&[1, 2, 3]).await.unwrap(), [1, 2, 3]);
    assert_eq!(rig.lab.record(&record()).await.unwrap(), Record { id: 42, ..record() });
    assert_eq!(rig.lab.numbers(&[1, u64::from(u32::MAX), 3]).await.unwrap(), 4 + u64::from(u32::MAX));
    assert_eq!(rig.lab.numbers(&[]).await.unwrap(), 0);
}

async fn bytes_travel_in_every_form(rig: Rig) {
    let bytes = pattern(1000, 1);
    assert_eq!(rig.lab.vector(bytes.clone()).await.unwrap(), bytes);
    assert_eq!(rig.lab.shared(bytes.clone().into()).await.unwrap(), bytes);
    for maybe in [None, Some(Vec::new()), Some(bytes)] {
        assert_eq!(rig.lab.maybe(maybe.clone()).await.unwrap(), maybe);
    }
}

async fn text_with_every_kind_of_escape_travels(rig: Rig) {
    let all: String = ('\0'..='\u{2ff}').collect();
    for text in [r#"""#, r"\", "\n", "\0", "\u{1f}\u{7f}", "\u{2028}", "🦀𝄞", r"\u0041", "plain, then \"quoted\"", &all] {
        assert_eq!(rig.lab.text(text).await.unwrap(), text.to_uppercase());
        assert_eq!(rig.lab.find(text).await.unwrap_err(), Error::App(LabError::NoSuchKey(text.into())));
    }
    let mut record = record();
    record.tags = vec![all.clone(), "\"".into()];
    record.counts.insert("a \"key\"\n".into(), u64::MAX);
    assert_eq!(rig.lab.record(&record).await.unwrap(), Record { id: 42, ..record });
}

async fn every_byte_travels(rig: Rig) {
    let all: Vec<u8> = (0..=u8::MAX).collect();
    for bytes in [&[][..], b"\"", &all] {
        assert_eq!(rig.lab.slice(bytes).await.unwrap(), bytes);
        assert_eq!(rig.lab.vector(bytes.to_vec()).await.unwrap(), bytes);
        assert_eq!(rig.lab.shared(bytes.to_vec().into()).await.unwrap(), bytes);
        assert_eq!(rig.lab.maybe(Some(bytes.to_vec())).await.unwrap().as_deref(), Some(bytes));
    }
}

fn forms() -> Vec<Form> {
    let (name, next) = (String::from("n\"\n"), Some(Box::new(Form::Unit)));
    let simple = vec![Form::Unit, Form::Struct { name: String::new(), next: None }, Form::Struct { name, next }];
    let nested = vec![Form::Newtype(Box::new(Form::Tuple(0, vec![]))), Form::Tuple(255, simple.clone())];
    [simple, nested].concat()
}

async fn enums_travel_in_every_form(rig: Rig) {
    for form in forms() {
        assert_eq!(rig.lab.form(&form).await.unwrap(), form);
    }
    let echoed = rig.lab.forms(stream::iter(forms())).await.unwrap();
    assert_eq!(echoed.map(Result::unwrap).collect::<Vec<_>>().await, forms());
    for most in [None, Some(u64::MAX)] {
        let errors =
            [LabError::Full, LabError::At(i64::MIN, "\"".into()), LabError::TooLong { most }, LabError::Disk("x".into())];
        for error in errors {
            assert_eq!(rig.lab.refuse(error.clone()).await.unwrap_err(), Error::App(error));
        }
    }
    rig.lab.nothing().await.unwrap();
}

async fn numbers_travel_at_their_edges(rig: Rig) {
    let scalars = |negative: bool| Scalars {
        signed: match negative {
            true => (i8::MIN, i16::MIN, i32::MIN, i64::MIN, i128::MIN),
            false => (i8::MAX, i16::MAX, i32::MAX, i64::MAX, i128::MAX),
        },
        unsigned: if negative { (0, 0, 0, 0, 0) } else { (u8::MAX, u16::MAX, u32::MAX, u64::MAX, u128::MAX) },
        // The largest, the smallest, the smallest of all, and those that want all 17 digits.
        floats: vec![f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324, f64::EPSILON, 0.1 + 0.2, 1e21, 1e22 / 3.0, 0.0, -0.0],
        short: vec![f32::MAX, f32::MIN_POSITIVE, 1e-45, 0.1, 16_777_217.0, -0.0],
        letters: vec!['\0', '"', '\\', '\u{d7ff}', '\u{e000}', char::MAX],
        yes: negative,
    };
    let bits = |scalars: &Scalars| -> Vec<u64> {
        let short = scalars.short.iter().map(|float| u64::from(float.to_bits()));
        scalars.floats.iter().map(|float| float.to_bits()).chain(short).collect()
    };
    for scalars in [scalars(true), scalars(false)] {
        let back = rig.lab.scalars(&scalars).await.unwrap();
        assert_eq!(bits(&back), bits(&scalars), "also the sign of zero");
        assert_eq!(back, scalars);
    }
    for (signed, unsigned) in [(i128::MIN, u128::MAX), (i128::MAX, 0), (i128::from(i64::MIN) - 1, u128::from(u64::MAX) + 1)] {
        assert_eq!(rig.lab.wide(signed, unsigned).await.unwrap(), (signed, unsigned));
    }
}

async fn maps_travel_with_keys_of_every_kind(rig: Rig) {
    let empty = Maps {
        words: Default::default(),
        signed: Default::default(),
        wide: Default::default(),
        letters: Default::default(),
        empty: Default::default(),
    };
    let maps = Maps {
        words: [("".into(), 0), ("a\"\\\n\0🦀".into(), u64::MAX)].into(),
        signed: [(i64::MIN, "least".into()), (0, "".into()), (i64::MAX, "most".into())].into(),
        wide: [(0, None), (u128::MAX, Some(true))].into(),
        letters: [('"', vec![1, 2]), ('\0', vec![]), (char::MAX, vec![255])].into(),
        empty: [(7, ())].into(),
    };
    for maps in [empty, maps] {
        assert_eq!(rig.lab.maps(maps.clone()).await.unwrap(), maps);
    }
}

async fn an_option_in_an_option_is_what_its_codec_says(rig: Rig) {
    for same in [None, Some(Some(0)), Some(Some(7))] {
        assert_eq!(rig.lab.nested(same).await.unwrap(), same);
    }
    // JSON has one `null` for both.
    let expected = if rig.json() { None } else { Some(None) };
    assert_eq!(rig.lab.nested(Some(None)).await.unwrap(), expected);
}

async fn what_a_codec_does_not_have_fails_at_its_call_alone(rig: Rig) {
    let refused = |error: Error| error.fault().map(|fault| (fault.kind(), fault.may_have_run()));
    let (grid, started) = ([((1, 2), 3)].into(), rig.bench.calls());
    if rig.json() {
        // Refused where it is encoded: at the caller before anything is sent, at the handler behind its end.
        let error = rig.lab.places(grid).await.unwrap_err();
        assert!(error.to_string().contains("key must be a string"), "{error}");
        assert_eq!(refused(error), Some((FaultKind::Incompatible, false)));
        assert_eq!(rig.bench.calls(), started);
        assert_eq!(refused(rig.lab.grid(2).await.unwrap_err()), Some((FaultKind::Internal, true)));
        // Or where it is decoded, because JSON writes `null` for it.
        for float in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(refused(rig.lab.float(float).await.unwrap_err()), Some((FaultKind::Incompatible, false)));
        }
    } else {
        assert_eq!(rig.lab.places(grid).await.unwrap(), 1);
        assert_eq!(rig.lab.grid(2).await.unwrap().len(), 2);
        assert!(rig.lab.float(f64::NAN).await.unwrap().is_nan());
        assert_eq!(rig.lab.float(f64::NEG_INFINITY).await.unwrap(), f64::NEG_INFINITY);
    }
    assert_eq!(rig.lab.grid(0).await.unwrap().len(), 0);
    assert_eq!(rig.lab.float(0.5).await.unwrap(), 0.5);
    rig.still_works().await;
}

async fn messages_from_nothing_to_the_limit_arrive_whole(rig: Rig) {
    // Around the sizes at which another path is taken: charge, inline, quantum, shared, off the driver, frame, window.
    let edges: [i64; 12] =
        [0, 1, 15, 16, 4096, 8192, 16 * 1024, 32 * 1024, 64 * 1024, 256 * 1024, 1024 * 1024, 4 * 1024 * 1024 - 72];
    for edge in edges {
        for size in [edge - 1, edge, edge + 1, edge + 64] {
            let bytes = rig.filling(usize::try_from(size.max(0)).unwrap_or(0), size as u64);
            let echoed = rig.lab.shared(bytes.clone().into()).await.unwrap();
            assert!(echoed == bytes, "{size} bytes do not come back as they went");
        }
    }
    let large = rig.filling(4_000_000, 0);
    let size = large.len();
    assert_eq!(rig.lab.size(large.into()).await.unwrap(), size as u64);
    assert_eq!(rig.lab.zeros(size as u64).await.unwrap().len(), size);
}

async fn sixty_four_calls_at_once_each_get_their_own_answer(rig: Rig) {
    let sizes = [0, 10, 5000, 40_000, 200_000];
    let calls = (0..64u64).map(|n| {
        let lab = rig.lab.clone();
        let rounds: Vec<_> = (0..5).map(|round| rig.filling(sizes[(n as usize + round) % sizes.len()], n)).collect();
        tokio::spawn(async move {
            for bytes in rounds {
                assert!(lab.shared(bytes.clone().into()).await.unwrap() == bytes);
                assert_eq!(lab.after(n as u32 % 7).await.unwrap(), n as u32 % 7);
            }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
}

async fn more_calls_than_the_peer_grants_all_get_their_turn(rig: Rig) {
    let calls: Vec<_> = (0..3000).map(|n| tokio::spawn(rig.lab.after(n % 4))).collect();
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap().unwrap(), n as u32 % 4);
    }
}

async fn an_application_error_is_typed(rig: Rig) {
    assert_eq!(rig.lab.find("one").await.unwrap(), 1);
    assert_eq!(rig.lab.find("two").await.unwrap_err(), Error::App(LabError::NoSuchKey("two".into())));
}

async fn errors_of_other_calls_are_lifted_and_foreign_ones_converted(rig: Rig) {
    assert_eq!(rig.lab.gate("one").await.unwrap(), 11);
    assert_eq!(rig.lab.gate("two").await.unwrap_err(), Error::App(GateError("no such key: two".into())));
    assert_eq!(rig.lab.disk().await.unwrap_err(), Error::App(LabError::Disk("torn".into())));
}

async fn a_stream_yields_every_item_in_order_and_ends(rig: Rig) {
    for count in [0, 1, 2, 10_000] {
        for size in [0, 3] {
            let mut items = rig.lab.items(count, size).await.unwrap();
            for n in 0..count {
                assert_eq!(items.next().await.unwrap().unwrap(), vec![n as u8; size as usize], "item {n} of {count}");
            }
            assert!(items.next().await.is_none());
            assert!(items.next().await.is_none(), "an end stays one");
        }
    }
    rig.still_works().await;
}

async fn a_stream_that_fails_yields_its_items_then_the_error(rig: Rig) {
    for good in [0, 1, 5000] {
        let mut items = rig.lab.up_to(good).await.unwrap();
        for n in 0..good {
            assert_eq!(items.next().await.unwrap().unwrap(), n);
        }
        assert_eq!(items.next().await.unwrap().unwrap_err(), Error::App(LabError::NoSuchKey(good.to_string())));
        assert!(items.next().await.is_none());
    }
    rig.still_works().await;
}

async fn a_stream_can_be_refused_before_its_first_item(rig: Rig) {
    assert_eq!(rig.lab.no_stream().await.unwrap_err(), Error::App(LabError::NoSuchKey("stream".into())));
    rig.still_works().await;
}

async fn large_items_arrive_whole(rig: Rig) {
    let mut items = rig.lab.items(20, 300 * 1024).await.unwrap();
    for n in 0..20 {
        assert!(items.next().await.unwrap().unwrap() == vec![n; 300 * 1024], "item {n} is another");
    }
    assert!(items.next().await.is_none());
    let large = Bytes::from(pattern(300 * 1024, 3));
    assert_eq!(rig.lab.total(stream::iter(vec![large; 20])).await.unwrap(), 20 * 300 * 1024);
    rig.still_works().await;
}

async fn a_dropped_stream_stops_its_producer(rig: Rig) {
    for (tag, taken) in [(1, 0), (2, 1), (3, 1000)] {
        let mut items = rig.lab.endless(tag).await.unwrap();
        for n in 0..taken {
            assert_eq!(items.next().await.unwrap().unwrap(), n);
        }
        drop(items);
        rig.events.dropped(tag).await;
    }
    let mut stuck = rig.lab.stuck(4).await.unwrap();
    assert_eq!(stuck.next().await.unwrap().unwrap(), 7);
    drop(stuck);
    rig.events.dropped(4).await;
    rig.still_works().await;
}

async fn items_go_up_and_one_answer_comes_back(rig: Rig) {
    for count in [0, 1, 10_000u64] {
        assert_eq!(rig.lab.sum(stream::iter(0..count)).await.unwrap(), count * count.saturating_sub(1) / 2);
    }
    let slow = stream::iter(0..20u64).then(|n| async move {
        tokio::task::yield_now().await;
        n
    });
    assert_eq!(rig.lab.sum(slow).await.unwrap(), 190);
}

async fn a_handler_may_answer_before_the_items_end(rig: Rig) {
    assert_eq!(rig.lab.first(3, stream::iter(1..)).await.unwrap(), 6);
    assert_eq!(rig.lab.first(0, stream::pending()).await.unwrap(), 0);
    rig.still_works().await;
}

async fn items_go_both_ways(rig: Rig) {
    let sent: Vec<_> = (0..2000).map(|n| Bytes::from(pattern(n % 97, n as u64))).collect();
    let items = rig.lab.echo(stream::iter(sent.clone())).await.unwrap();
    let back: Vec<_> = items.map(Result::unwrap).collect().await;
    assert!(back == sent);
    rig.still_works().await;
}

async fn one_item_up_is_one_item_down_without_a_batch(rig: Rig) {
    let (up, items) = mpsc::channel(1);
    let mut down = rig.lab.echo(received(items)).await.unwrap();
    for n in 0..200u64 {
        up.send(Bytes::from(pattern(10, n))).await.unwrap();
        assert_eq!(soon("an item comes back", down.next()).await.unwrap().unwrap(), pattern(10, n));
    }
    drop(up);
    assert!(down.next().await.is_none());
    rig.still_works().await;
}

async fn an_endless_source_stops_with_its_call(rig: Rig) {
    let (up, items) = mpsc::channel::<Bytes>(1);
    let call = tokio::spawn(rig.lab.hold(5, received(items)));
    rig.events.started(5).await;
    call.abort();
    rig.events.dropped(5).await;
    soon("the source is dropped", up.closed()).await;
    rig.still_works().await;
}

async fn one_way_calls_arrive(rig: Rig) {
    rig.lab.note(7).await.unwrap();
    eventually("the note arrives", || rig.bench.notes() == (1, 7)).await;
    for n in 0..3000 {
        rig.lab.note(n).await.unwrap();
    }
    eventually("all notes arrive", || rig.bench.notes() == (3001, 7 + 2999 * 3000 / 2)).await;
    for _ in 0..10 {
        rig.lab.large_note(pattern(1_000_000, 0).into()).await.unwrap();
    }
    eventually("large notes arrive", || rig.bench.notes() == (3011, 7 + 2999 * 3000 / 2 + 10_000_000)).await;
    rig.still_works().await;
}

async fn a_timeout_ends_the_call_and_drops_its_handler(rig: Rig) {
    let error = rig.lab.hang(1).timeout(Duration::from_millis(40)).await.unwrap_err();
    let fault = error.fault().unwrap();
    assert_eq!((fault.kind(), fault.may_have_run()), (FaultKind::Deadline, true));
    rig.events.started(1).await;
    rig.events.dropped(1).await;
    rig.still_works().await;
}

async fn a_timeout_of_zero_starts_nothing(rig: Rig) {
    let error = rig.lab.hang(1).timeout(Duration::ZERO).await.unwrap_err();
    let fault = error.fault().unwrap();
    assert_eq!((fault.kind(), fault.may_have_run()), (FaultKind::Deadline, false));
    rig.still_works().await;
    assert_eq!(rig.bench.calls(), 1, "only the check of the end ran");
}

async fn a_timeout_ends_a_stream_that_hangs(rig: Rig) {
    let mut items = rig.lab.stuck(1).timeout(Duration::from_millis(100)).await.unwrap();
    assert_eq!(items.next().await.unwrap().unwrap(), 7);
    let error = soon("the deadline ends the stream", items.next()).await.unwrap().unwrap_err();
    assert_eq!(error.fault().unwrap().kind(), FaultKind::Deadline);
    assert!(items.next().await.is_none());
    rig.events.dropped(1).await;
    rig.still_works().await;
}

async fn a_deadline_is_inherited_by_calls_of_the_handler(rig: Rig) {
    let (_, left) = rig.lab.who_downstream().timeout(Duration::from_secs(20)).await.unwrap();
    let left = left.expect("the call downstream has a deadline");
    assert!(left <= 20_000, "{left} ms are left downstream, of 20 s");
    // And the inner end is as tight as the outer one.
    let error = rig.lab.hang_downstream(9).timeout(Duration::from_millis(60)).await.unwrap_err();
    assert_eq!(error.fault().unwrap().kind(), FaultKind::Deadline);
    rig.events.dropped(9).await;
    rig.still_works().await;
}

async fn a_dropped_call_drops_its_handler(rig: Rig) {
    let call = tokio::spawn(rig.lab.hang(1));
    rig.events.started(1).await;
    call.abort();
    rig.events.dropped(1).await;
    rig.still_works().await;
}

async fn a_dropped_call_drops_what_its_handler_called(rig: Rig) {
    let call = tokio::spawn(rig.lab.hang_downstream(1));
    rig.events.started(1).await;
    assert_eq!(rig.bench.live(), 2);
    call.abort();
    rig.events.dropped(1).await;
    rig.still_works().await;
}

async fn work_that_a_handler_spawned_learns_of_the_end(rig: Rig) {
    let call = tokio::spawn(LabClient::watched(&rig.lab, 1));
    rig.events.started(1).await;
    call.abort();
    rig.events.wait_for(Event::Cancelled(1)).await;
    let error = LabClient::watched(&rig.lab, 2).timeout(Duration::from_millis(40)).await.unwrap_err();
    assert_eq!(error.fault().unwrap().kind(), FaultKind::Deadline);
    rig.events.wait_for(Event::Cancelled(2)).await;
    rig.still_works().await;
}

async fn a_call_that_was_never_polled_sends_nothing(rig: Rig) {
    for tag in 0..100 {
        drop(rig.lab.hang(tag));
        drop(rig.lab.sum(stream::pending()));
        drop(rig.lab.note(tag));
    }
    rig.still_works().await;
    assert_eq!(rig.bench.calls(), 1);
}

async fn the_context_tells_peer_and_deadline(rig: Rig) {
    let (peer, left) = LabClient::who(&rig.lab).timeout(LONG).await.unwrap();
    let scheme = match rig.target {
        Target::Tcp | Target::TcpSingle | Target::TcpReversed | Target::Layered => "tcp://127.0.0.1:",
        Target::Memory | Target::MemoryReversed => "mem://cases-",
        #[cfg(windows)]
        Target::Pipe => "pipe://",
        Target::Unix | Target::UnixReversed => "unix:///",
        Target::UnixSingle => "local://cases-",
        Target::Fifo | Target::FifoSingle | Target::FifoReversed => "pipe://cases-",
        Target::Local => "local",
        Target::Tls => "tls://127.0.0.1:",
        Target::UnixTls => "local://cases-",
        Target::FifoTls => "pipe://cases-",
        Target::TlsStream => "odd://client",
    };
    assert!(peer.starts_with(scheme), "{peer}");
    assert!(left.is_some_and(|left| left > 0 && left <= 50_000), "{left:?} ms are left of 50 s");
    let (_, left) = LabClient::who(&rig.lab).await.unwrap();
    assert_eq!(left.is_some(), rig.target != Target::Local, "a call over a connection has a deadline by default");
}

async fn a_panic_in_a_handler_fails_its_call_alone(rig: Rig) {
    let neighbour = tokio::spawn(rig.lab.hang(1));
    rig.events.started(1).await;
    for turns in [0, 1, 3] {
        let error = rig.lab.panics(turns).await.unwrap_err();
        assert_eq!(error.fault().unwrap().kind(), FaultKind::Internal);
    }
    assert!(!neighbour.is_finished());
    neighbour.abort();
    rig.still_works().await;
}

async fn a_panic_in_a_stream_fails_it_alone(rig: Rig) {
    let mut items = rig.lab.panics_in_stream(3).await.unwrap();
    let mut taken = 0;
    let error = loop {
        match items.next().await.expect("a stream that breaks does not end in good order") {
            Ok(n) => {
                assert_eq!(n, taken);
                taken += 1;
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error.fault().unwrap().kind(), FaultKind::Internal);
    assert!(taken <= 3);
    rig.still_works().await;
}

async fn a_fault_of_the_handler_keeps_its_class(rig: Rig) {
    let error = rig.lab.fault().await.unwrap_err();
    let fault = error.fault().unwrap();
    assert_eq!((fault.kind(), fault.code()), (FaultKind::TooLarge, Code::TOO_LARGE));
    assert_eq!(fault.detail(), "more than the handler takes");
    assert!(fault.may_have_run());
}

async fn a_handler_that_ran_cannot_promise_that_nothing_was_started(rig: Rig) {
    let error = rig.lab.busy().await.unwrap_err();
    assert!(error.fault().unwrap().may_have_run(), "{error}");
}

async fn everything(lab: &impl Lab) -> rpc::Result<String, LabError> {
    let text = lab.text("abc").await.map_err(|error| error.map_app(|never| match never {}))?;
    let found = lab.find("one").await?;
    let mut items = lab.up_to(3).await?;
    let mut sum = 0;
    while let Some(Ok(n)) = items.next().await {
        sum += n;
    }
    let mut echoed = pin!(lab.echo([Bytes::from_static(b"x")].into_iter().collect()).await.unwrap());
    let first = echoed.next().await.unwrap().unwrap();
    let (_, left) = lab.who(&rpc::Context::with_deadline(std::time::Instant::now() + LONG)).await.unwrap();
    lab.note(1).await.unwrap();
    Ok(format!("{text} {found} {sum} {first:?} {}", left.is_some()))
}

async fn code_over_the_trait_takes_service_and_client(rig: Rig) {
    let expected = "ABC 1 3 b\"x\" true";
    assert_eq!(everything(&rig.bench).await.unwrap(), expected);
    assert_eq!(everything(&std::sync::Arc::new(rig.bench.clone())).await.unwrap(), expected);
    assert_eq!(everything(&rig.lab).await.unwrap(), expected);
    eventually("all notes arrive", || rig.bench.notes() == (3, 3)).await;
}

/// Metadata of the lab in the form that it reports.
fn pair(key: &str, value: impl AsRef<[u8]>) -> (String, Vec<u8>) {
    (key.to_owned(), value.as_ref().to_vec())
}

async fn metadata_reach_the_handler_and_nobody_behind_it(rig: Rig) {
    let call = LabClient::beside(&rig.lab, Bytes::from_static(b"abc"));
    let call = call.metadata("trace-id", "1").metadata("raw", [0xFF, 0]).metadata("trace-id", "17");
    assert_eq!(call.await.unwrap(), (vec![pair("trace-id", "17"), pair("raw", [0xFF, 0])], 3));
    assert_eq!(LabClient::beside(&rig.lab, Bytes::new()).await.unwrap(), (vec![], 0));
    assert_eq!(rig.lab.beside_downstream().metadata("authorization", "mine").await.unwrap(), (vec![], 0));
    rig.still_works().await;
}

async fn metadata_go_with_arguments_of_every_length_and_with_streams(rig: Rig) {
    // As much as may be: the key and its length take 2 bytes, the value's length 2.
    for size in [0, 16_380] {
        let value = pattern(size, 5);
        // Around the sizes from which on arguments are shared, decoded elsewhere, and sent in pieces.
        for length in [0, 1, 16 * 1024, 32 * 1024, 64 * 1024, 256 * 1024 - 16_500, 256 * 1024, 1_000_000] {
            let call = LabClient::beside(&rig.lab, Bytes::from(pattern(length, 1))).metadata("k", &value);
            assert!(call.timeout(LONG).await.unwrap() == (vec![pair("k", &value)], length as u64), "{size}, {length}");
        }
        let items = vec![Bytes::from_static(b"x"); 100];
        let back = LabClient::beside_items(&rig.lab, stream::iter(items.clone())).metadata("k", &value).await.unwrap();
        let back: Vec<_> = back.map(Result::unwrap).collect().await;
        assert!(back == [vec![Bytes::from(value)], items].concat());
    }
    let calls = (0..3000u32).map(|n| tokio::spawn(LabClient::beside(&rig.lab, Bytes::new()).metadata("n", n.to_le_bytes())));
    for (n, call) in calls.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(call.await.unwrap().unwrap(), (vec![pair("n", (n as u32).to_le_bytes())], 0));
    }
    rig.lab.note(7).metadata("k", "v").await.unwrap();
    eventually("the note arrives", || rig.bench.notes() == (1, 7)).await;
    rig.still_works().await;
}

async fn too_much_metadata_is_a_fault_that_names_the_key_and_nothing_is_sent(rig: Rig) {
    let call = || rig.lab.text("never");
    let with_keys = |count| (0..count).fold(call(), |call, n| call.metadata(&format!("k{n}"), ""));
    let too_much = [
        (
            call().metadata("first", "1").metadata("token", vec![0; 16_380]),
            FaultKind::TooLarge,
            "`token`",
            "Limits::metadata_bytes",
        ),
        (with_keys(65), FaultKind::TooLarge, "`k64`", "Limits::metadata_entries"),
        (call().metadata("No Key", "").metadata("k", ""), FaultKind::Incompatible, "`No Key`", "a-z"),
        (call().metadata("", ""), FaultKind::Incompatible, "``", "1 to 255"),
    ];
    for (call, kind, key, fix) in too_much {
        let error = call.await.unwrap_err();
        let fault = error.fault().unwrap();
        assert_eq!((fault.kind(), fault.may_have_run()), (kind, false), "{fault}");
        assert!(fault.detail().contains(key) && fault.detail().contains(fix), "{fault}");
    }
    assert_eq!(rig.bench.calls(), 0, "nothing was sent");
    assert_eq!(with_keys(64).await.unwrap(), "NEVER");
    rig.still_works().await;
}

/// What a call that should call back comes to where it cannot: the handler ran, and says why.
fn cannot_call_back<T: std::fmt::Debug>(rig: &Rig, answer: rpc::Result<T>) {
    let error = answer.unwrap_err();
    let fault = error.fault().unwrap();
    assert_eq!((fault.kind(), fault.may_have_run()), (FaultKind::Incompatible, true), "{error}");
    let why = match rig.target {
        // One session, and it is the caller's.
        _ if rig.target.is_single() => "in single-session mode a connection has one session",
        _ => "there is no connection to call back on",
    };
    assert!(error.to_string().contains(why), "{error}");
}

/// Small windows for everything, on both sides.
fn small(limits: &mut Limits) {
    limits.max_frame = 4096;
    limits.stream_window = 4096;
    limits.session_window = 4096;
    limits.connection_window = 4096;
}

async fn a_handler_calls_its_caller_back(rig: Rig) {
    let load = Bytes::from(pattern(100, 1));
    assert_eq!(rig.lab.bounce(0, load.clone()).await.unwrap(), (0, load.clone()));
    if !rig.target.calls_back() {
        cannot_call_back(&rig, rig.lab.bounce(1, load).await);
        cannot_call_back(&rig, rig.lab.relay(1, stream::empty()).await);
        return rig.still_works().await;
    }
    assert_eq!(rig.lab.bounce(1, load.clone()).await.unwrap(), (1, load));
    assert_eq!(rig.bench.calls(), 3);
    rig.still_works().await;
}

async fn calls_go_back_and_forth_through_many_levels(rig: Rig) {
    if !rig.target.calls_back() {
        return cannot_call_back(&rig, rig.lab.bounce(20, Bytes::new()).await);
    }
    for (depth, size) in [(2, 0), (3, 100_000), (20, 10), (60, 300)] {
        let load = Bytes::from(rig.filling(size, u64::from(depth)));
        assert_eq!(rig.lab.bounce(depth, load.clone()).await.unwrap(), (depth, load));
    }
    rig.still_works().await;
}

async fn many_calls_go_back_and_forth_at_once(rig: Rig) {
    if !rig.target.calls_back() {
        return cannot_call_back(&rig, rig.lab.bounce(6, Bytes::new()).await);
    }
    for _ in 0..5 {
        let calls = (0..30).map(|n| {
            let load = Bytes::from(rig.filling([0, 100, 20_000][n % 3], n as u64));
            let (lab, depth) = (rig.lab.clone(), n as u32 % 7);
            tokio::spawn(async move { assert_eq!(lab.bounce(depth, load.clone()).await.unwrap(), (depth, load)) })
        });
        for call in calls.collect::<Vec<_>>() {
            soon("a call that calls back", call).await.unwrap();
        }
    }
    rig.still_works().await;
}

/// Sends items through calls that call back, and takes them back in order.
async fn passes_through(rig: &Rig, depth: u32, count: usize, size: usize) {
    let sent: Vec<_> = (0..count).map(|n| Bytes::from(rig.filling(size, n as u64))).collect();
    let items = rig.lab.relay(depth, stream::iter(sent.clone())).await.unwrap();
    let back: Vec<_> = soon("items come back through all levels", items.map(Result::unwrap).collect()).await;
    assert!(back == sent, "{count} items of {size} bytes through {depth} levels");
}

async fn a_stream_passes_through_calls_that_call_back(rig: Rig) {
    passes_through(&rig, 0, 10, 10).await;
    if !rig.target.calls_back() {
        return cannot_call_back(&rig, rig.lab.relay(3, stream::empty()).await);
    }
    for (depth, count, size) in [(1, 0, 0), (1, 2000, 90), (4, 200, 3000), (7, 3, 100_000)] {
        passes_through(&rig, depth, count, size).await;
    }
    // Letting go of the stream lets go of all levels.
    let mut items = rig.lab.relay(5, stream::repeat(Bytes::from_static(b"x"))).await.unwrap();
    assert_eq!(items.next().await.unwrap().unwrap(), "x");
    drop(items);
    rig.still_works().await;
}

async fn the_smallest_windows_let_calls_call_back(rig: Rig) {
    if !rig.target.calls_back() {
        let rig = Rig::with(rig.target, rig.codec, limits(small)).await;
        return cannot_call_back(&rig, rig.lab.bounce(1, Bytes::new()).await);
    }
    let rig = Rig::with(rig.target, rig.codec, limits(small)).await;
    for (depth, size) in [(1, 4096), (2, 20_000), (9, 100), (5, 50_000)] {
        let load = Bytes::from(rig.filling(size, 3));
        let bounced = soon("it bounces under small windows", rig.lab.bounce(depth, load.clone())).await;
        assert_eq!(bounced.unwrap(), (depth, load));
    }
    for (depth, count, size) in [(1, 200, 100), (3, 20, 4096), (4, 4, 30_000)] {
        passes_through(&rig, depth, count, size).await;
    }
    let calls = (0..12).map(|n| {
        let (lab, load) = (rig.lab.clone(), Bytes::from(rig.filling(6000, n)));
        tokio::spawn(async move { assert_eq!(lab.bounce(5, load.clone()).await.unwrap(), (5, load)) })
    });
    for call in calls.collect::<Vec<_>>() {
        soon("many calls call back under small windows", call).await.unwrap();
    }
    rig.still_works().await;
}

async fn what_nobody_reads_does_not_hold_up_calls_that_call_back(rig: Rig) {
    if !rig.target.calls_back() {
        return cannot_call_back(&rig, rig.lab.bounce_then_read(0, stream::empty()).await);
    }
    for limits in [Limits::default(), limits(small)] {
        let rig = Rig::with(rig.target, rig.codec, limits).await;
        // Items on their way down that their caller does not take, in the session in which it calls.
        let mut unread = Vec::new();
        for tag in 0..3 {
            unread.push(soon("a stream is accepted", rig.lab.endless(tag)).await.unwrap());
        }
        let load = Bytes::from(rig.filling(3000, 5));
        let bounced = soon("it bounces beside unread items", rig.lab.bounce(6, load.clone())).await;
        assert_eq!(bounced.unwrap(), (6, load));
        // And items on their way up that the handler does not take before it has called back.
        for depth in [0, 1, 4] {
            let item = Bytes::from(rig.filling(2000, 7));
            let taken = rig.lab.bounce_then_read(depth, stream::iter(vec![item.clone(); 50]));
            assert_eq!(soon("it calls back before it reads", taken).await.unwrap(), 50 * item.len() as u64);
        }
        drop(unread);
        rig.still_works().await;
    }
}
