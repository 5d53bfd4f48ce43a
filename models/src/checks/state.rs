//! What is left for a driver it finds, and whoever waits for an end is told of it.
//!
//! The driver here does what the real one does between two waits: it takes what there is, or leaves its waker behind under
//! the same lock.

use std::future::poll_fn;
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use rpc_core::code::Code;
use rpc_core::context::Peer;
use rpc_core::id::{Sid, Side};
use rpc_core::proto::outbox::{Output, SessionSlot};
use rpc_core::proto::{AnswerKind, ConnectionError, Limits, Link as Place, OpenCommand, Session};
use rpc_core::wire::frame::Reason;
use shuttle::future::block_on;
use shuttle::thread;
use tokio::runtime::{Builder, Runtime};

use super::state::{Command, Link, SessionState, Slot};

/// A session of this side on a connection that stands.
pub(crate) fn opened() -> (Arc<Link>, Arc<SessionState>) {
    // Nothing is spawned on it.
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| Builder::new_current_thread().build().expect("a runtime starts"));
    let limits = Limits::default();
    let mut proto = Session::<Slot>::new(Side::Initiator, limits.session());
    proto.granted(limits.windows());
    proto.attach(Place { slot: SessionSlot(0), sid: Some(Sid(0)) });
    let link = Link::new(Peer::new("mem://model"), limits, Vec::new(), runtime.handle().clone());
    link.lock().out.open(1 << 20, 1 << 20);
    let session = SessionState::new(proto, Arc::clone(&link));
    (link, session)
}

/// Takes what is left for it until it is told to end, or has taken so many bytes. Returns how many.
pub(crate) async fn drive(link: &Link, session: &SessionState, most: usize) -> usize {
    let (mut taken, mut closing) = (0, false);
    poll_fn(|cx| {
        loop {
            let mut state = link.lock();
            for command in std::mem::take(&mut state.commands) {
                closing |= matches!(command, Command::Close);
            }
            if let Some((_, lane)) = state.out.next_session() {
                drop(state);
                session.lock().proto.transmit(lane, &mut link.lock().out);
            } else if !state.out.is_quiet() {
                let mut output = Output::default();
                state.out.swap(&mut output);
                taken += output.len();
            } else if closing || taken >= most {
                state.closed = Some(ConnectionError::Closed);
                drop(state);
                link.ended.notify_waiters();
                return Poll::Ready(taken);
            } else {
                state.driver = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
    })
    .await
}

fn a_command_is_found_and_those_who_wait_for_the_end_are_told() {
    let (link, session) = opened();
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let link = Arc::clone(&link);
            thread::spawn(move || assert_eq!(block_on(link.wait_closed()), ConnectionError::Closed))
        })
        .collect();
    let commands = Arc::clone(&link);
    let closing = thread::spawn(move || commands.command(Command::Close));
    block_on(drive(&link, &session, usize::MAX));
    for thread in waiting.into_iter().chain([closing]) {
        thread.join().expect("it does not panic");
    }
}

/// A call of a hundred bytes and a head.
fn call(session: &SessionState) {
    let command = OpenCommand { method: 0, timeout: None, body: vec![7; 100].into(), more: false, answer: AnswerKind::One };
    session
        .act_now(|proto, out| proto.open_now(command, Slot::default(), out))
        .expect("it is on a connection")
        .expect("there is room");
}

fn each_call_is_taken_from_whatever_thread_it_comes() {
    let (link, session) = opened();
    let callers: Vec<_> = (0..2)
        .map(|_| {
            let session = Arc::clone(&session);
            thread::spawn(move || call(&session))
        })
        .collect();
    // It hangs where one stays behind.
    let taken = block_on(drive(&link, &session, 2 * 100));
    assert!((200..300).contains(&taken), "{taken}");
    callers.into_iter().for_each(|caller| caller.join().expect("it does not panic"));
}

fn what_a_session_says_of_itself_is_taken_though_no_command_follows() {
    let (link, session) = opened();
    let closes = Arc::clone(&session);
    let closing = thread::spawn(move || closes.act(|proto| proto.close()));
    assert!(block_on(drive(&link, &session, 1)) > 0);
    closing.join().expect("it does not panic");
}

fn whoever_waits_for_the_end_of_a_session_is_told() {
    let (_link, session) = opened();
    let waits = Arc::clone(&session);
    let waiting =
        thread::spawn(move || assert_eq!(block_on(waits.wait_ended()).reason().map(|reason| reason.code), Some(Code::CALM)));
    session.ended(Reason::new(Code::CALM, "on purpose"), false);
    waiting.join().expect("it does not panic");
}

pub(crate) const CHECKS: &[crate::Check] = &[
    ("a command is found and those who wait for the end are told", a_command_is_found_and_those_who_wait_for_the_end_are_told),
    ("each call is taken from whatever thread it comes", each_call_is_taken_from_whatever_thread_it_comes),
    ("what a session says is taken", what_a_session_says_of_itself_is_taken_though_no_command_follows),
    ("whoever waits for the end of a session is told", whoever_waits_for_the_end_of_a_session_is_told),
];
