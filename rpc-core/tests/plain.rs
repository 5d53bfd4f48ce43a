//! The way of plain calls leads where the way of all frames leads: whatever comes, and whatever the application does, the same
//! bytes are written, the same is found, and the same is left.

#[expect(dead_code, reason = "the others look at single frames")]
mod bench;

use std::time::Duration;

use bench::{Bench, WHOLE};
use proptest::prelude::*;
use rpc_core::id::{ExchangeKey, Side, Xid};
use rpc_core::proto::{AnswerKind, Fresh, Limits, OpenCommand, SessionEvent};
use rpc_core::wire::frame::{Beside, DEFAULT_URGENCY, Open, exchange_head, flag, kind, session_head};

/// What comes, or what the application does.
#[derive(Debug, Clone)]
enum Step {
    /// The peer calls: with these flags, this time, so urgently, with so many bytes; and so many are the answer, if there is one
    /// at once.
    Called { flags: u8, method: u64, timeout: Option<u64>, urgency: u8, len: usize, answer: Option<usize> },
    /// The peer answers a call of this side, by its number.
    Answered { call: usize, flags: u8, len: usize },
    /// The peer wants no more of one of its calls, or resets its side of one of this side's.
    Stopped { call: usize, reset: bool },
    /// The peer gives credit for the session.
    Raised { bytes: u64, exchanges: u64 },
    /// The peer closes the session.
    Closed,
    /// This side calls.
    Call { len: usize, answer: AnswerKind },
    /// A handler that has taken its time answers.
    Answer { call: usize, len: usize, is_error: bool },
    /// A caller takes its answer, or does not want it any more.
    Take { call: usize, drop: bool },
    /// What is due is written.
    Written,
}

fn step() -> impl Strategy<Value = Step> {
    let flags = prop_oneof![8 => Just(WHOLE), 1 => Just(WHOLE | flag::ONEWAY), 1 => Just(flag::EOM), 1 => Just(flag::END)];
    let len = || prop_oneof![3 => 0usize..10, 3 => 0usize..100, 1 => 500usize..700, 1 => 1900usize..2100];
    let timeout = prop_oneof![4 => Just(None), 1 => (0u64..5000).prop_map(Some)];
    let answer = prop_oneof![3 => Just(AnswerKind::One), 1 => Just(AnswerKind::Many), 1 => Just(AnswerKind::None)];
    let ends =
        prop_oneof![6 => Just(WHOLE), 1 => Just(WHOLE | flag::ERR), 1 => Just(flag::EOM), 1 => Just(flag::END), 2 => Just(0)];
    let urgency = prop_oneof![6 => Just(DEFAULT_URGENCY), 1 => 0u8..8];
    prop_oneof![
        8 => (flags, 0u64..3, timeout, urgency, len(), proptest::option::weighted(0.7, len()))
            .prop_map(|(flags, method, timeout, urgency, len, answer)| Step::Called { flags, method, timeout, urgency, len, answer }),
        9 => (any::<prop::sample::Index>(), ends, len()).prop_map(|(call, flags, len)| Step::Answered { call: call.index(64), flags, len }),
        1 => (0usize..64, any::<bool>()).prop_map(|(call, reset)| Step::Stopped { call, reset }),
        2 => (0u64..3000, 0u64..4).prop_map(|(bytes, exchanges)| Step::Raised { bytes, exchanges }),
        1 => Just(Step::Closed),
        6 => (len(), answer).prop_map(|(len, answer)| Step::Call { len, answer }),
        3 => (0usize..64, len(), any::<bool>()).prop_map(|(call, len, is_error)| Step::Answer { call, len, is_error }),
        4 => (0usize..64, proptest::bool::weighted(0.2)).prop_map(|(call, drop)| Step::Take { call, drop }),
        4 => Just(Step::Written),
    ]
}

/// A session with the applications of both sides.
struct End {
    bench: Bench,
    /// Whether plain frames go their own way.
    plain: bool,
    /// How many did.
    taken: usize,
    called: u64,
    handlers: Vec<ExchangeKey>,
    calls: Vec<ExchangeKey>,
}

impl End {
    /// `wide`: the windows hold more than a message may have.
    fn new(side: Side, wide: bool, plain: bool) -> Self {
        let mut limits = Limits::default().exchanges(4);
        let windows = if wide { (2500, 6000, 600) } else { (600, 1200, 2000) };
        (limits.stream_window, limits.session_window, limits.max_message) = windows;
        let bench = Bench::new(side, limits);
        Self { bench, plain, taken: 0, called: 0, handlers: Vec::new(), calls: Vec::new() }
    }

    /// Does what a step says, and tells what can be seen of it.
    fn step(&mut self, side: Side, step: &Step) -> Result<String, String> {
        let ours = |call: usize| Xid(2 * call as u64 + side.first_id());
        let mut seen = String::new();
        match *step {
            Step::Called { flags, method, timeout, urgency, len, answer } => {
                let beside = Beside { urgency, ..Beside::NOTHING };
                let extended = timeout.is_some() || !beside.is_nothing();
                let flags = flags | if extended { flag::EXT } else { 0 };
                let mut head = exchange_head(kind::OPEN, flags, None, Xid(2 * self.called + side.peer().first_id()));
                let total = (flags & flag::EOM == 0).then_some(len as u64 + 1);
                let (open, mut behind) = (Open { method, timeout_ms: timeout, total }, Vec::new());
                if beside.is_nothing() {
                    open.write(&mut head);
                } else {
                    open.write_with(beside, &mut head, &mut behind);
                }
                behind.resize(behind.len() + len, 7);
                self.called += 1;
                let plain = self.plain;
                let event = self.bench.read(head, &behind, |session, frame, now| {
                    let fresh = if plain { session.receive_call(frame, now) } else { None };
                    match fresh {
                        Some((fresh, args)) => Ok((Some((fresh, args.to_vec())), None)),
                        None => session.handle_frame(frame, now, || ()).map(|event| (None, event)),
                    }
                });
                match event.map_err(|error| error.to_string())? {
                    (Some((fresh, args)), _) => {
                        self.taken += 1;
                        seen = format!("{:?}", (fresh.key(), fresh.method, fresh.timeout, args, false, false));
                        self.served_fresh(fresh, answer);
                    }
                    (None, Some(SessionEvent::Opened { key, method, timeout, body, more, one_way, .. })) => {
                        seen = format!("{:?}", (key, method, timeout, body, more, one_way));
                        match answer {
                            Some(len) => self.bench.session.answer_now(key, vec![8; len].into(), false, &mut self.bench.out),
                            None => self.handlers.push(key),
                        }
                    }
                    (None, event) => seen = format!("{event:?}"),
                }
            }
            Step::Answered { call, flags, len } => {
                let plain = self.plain;
                let head = exchange_head(kind::DATA, flags, None, ours(call % self.calls.len().max(1)));
                let (taken, event) = self.bench.read(head, &vec![9; len], |session, frame, now| {
                    match plain && session.receive_answer(frame).is_some() {
                        true => (1, Ok(None)),
                        false => (0, session.handle_frame(frame, now, || ())),
                    }
                });
                self.taken += taken;
                // A plain answer wakes whoever waits for it, as `Readable` does.
                let event = event.map_err(|error| error.to_string())?;
                seen = format!("{:?}", event.filter(|event| !matches!(event, SessionEvent::Readable(_))));
            }
            Step::Stopped { call, reset } => {
                let (head, body) = if reset {
                    (exchange_head(kind::RESET, 0, None, ours(call % self.calls.len().max(1))), [1, 0].as_slice())
                } else {
                    let xid = Xid(2 * (call as u64 % self.called.max(1)) + side.peer().first_id());
                    (exchange_head(kind::CANCEL, 0, None, xid), [0].as_slice())
                };
                seen = format!("{:?}", self.bench.receive(head, body).map_err(|error| error.to_string())?);
            }
            Step::Raised { bytes, exchanges } => {
                let mut head = session_head(kind::MAX_SESSION, 0, None);
                head.varint(bytes);
                head.varint(exchanges);
                seen = format!("{:?}", self.bench.receive(head, &[]).map_err(|error| error.to_string())?);
            }
            Step::Closed => {
                let head = session_head(kind::S_CLOSE, 0, None);
                seen = format!("{:?}", self.bench.receive(head, &[]).map_err(|error| error.to_string())?);
            }
            Step::Call { len, answer } => {
                let command = OpenCommand { method: 1, timeout: None, body: vec![5; len].into(), more: false, answer };
                match self.bench.session.open_now(command, (), &mut self.bench.out) {
                    Ok(key) => self.calls.push(key),
                    Err(fault) => seen = format!("{fault:?}"),
                }
            }
            Step::Answer { call, len, is_error } if !self.handlers.is_empty() => {
                let key = self.handlers.remove(call % self.handlers.len());
                self.bench.session.answer_now(key, vec![6; len].into(), is_error, &mut self.bench.out);
            }
            Step::Take { call, drop } if !self.calls.is_empty() => {
                let key = self.calls[call % self.calls.len()];
                if drop {
                    self.bench.session.release(key);
                } else {
                    seen = format!("{:?}", self.bench.session.take_answer(key));
                }
            }
            Step::Written => seen = format!("{:?}", self.bench.bytes()),
            Step::Answer { .. } | Step::Take { .. } => {}
        }
        let session = &mut self.bench.session;
        session.flush(&mut self.bench.out);
        let toll = if session.is_provoked() {
            session.charge_toll(self.bench.now).map_err(|error| error.to_string())?
        } else {
            Default::default()
        };
        let session = &self.bench.session;
        let left = (session.counts(), session.view(), session.live(), session.held(), session.footprint(), session.is_finished());
        let exchanges: Vec<_> = session.exchanges().collect();
        Ok(format!("{seen} {toll:?} {left:?} {exchanges:?} {:?}", (self.bench.out.sent(), self.bench.out.frames())))
    }

    /// What ends when everything is overdue.
    fn overdue(&mut self) -> Vec<(ExchangeKey, Side)> {
        let mut ended = Vec::new();
        self.bench.session.stamp(self.bench.now);
        let far = self.bench.now.after(Duration::from_secs(1_000_000));
        self.bench.session.handle_deadlines(far, |key, opener| ended.push((key, opener)));
        ended
    }

    fn served_fresh(&mut self, fresh: Fresh, answer: Option<usize>) {
        let (key, timeout, session) = (fresh.key(), fresh.timeout, &mut self.bench.session);
        assert!(session.is_fresh(key));
        match answer {
            Some(len) => {
                session.answer_fresh(fresh, timeout, vec![8; len].into(), false, &mut self.bench.out);
            }
            None => {
                session.keep(fresh, timeout);
                self.handlers.push(key);
            }
        }
        assert!(!session.is_fresh(key));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_plain_frame_leads_where_all_frames_lead(initiator: bool, wide: bool, steps in proptest::collection::vec(step(), 1..60)) {
        let side = if initiator { Side::Initiator } else { Side::Acceptor };
        let (mut plain, mut general) = (End::new(side, wide, true), End::new(side, wide, false));
        for step in &steps {
            let (plain, general) = (plain.step(side, step), general.step(side, step));
            prop_assert_eq!(&plain, &general, "{:?}", step);
            if plain.is_err() {
                break;
            }
        }
        prop_assert_eq!(plain.bench.bytes(), general.bench.bytes());
        prop_assert_eq!(plain.overdue(), general.overdue());
    }
}

/// Else the property above says nothing.
#[test]
fn plain_calls_and_answers_go_their_own_way() {
    let mut end = End::new(Side::Acceptor, false, true);
    for n in 0..6 {
        let answer = (n % 2 == 0).then_some(10);
        end.step(
            Side::Acceptor,
            &Step::Called { flags: WHOLE, method: 0, timeout: None, urgency: DEFAULT_URGENCY, len: 10, answer },
        )
        .unwrap();
        if answer.is_none() {
            end.step(Side::Acceptor, &Step::Answer { call: 0, len: 10, is_error: false }).unwrap();
        }
    }
    assert_eq!((end.taken, end.bench.session.live()), (6, 0));
    for call in 0..3 {
        end.step(Side::Acceptor, &Step::Call { len: 10, answer: AnswerKind::One }).unwrap();
        end.step(Side::Acceptor, &Step::Answered { call, flags: WHOLE, len: 10 }).unwrap();
    }
    assert_eq!(end.taken, 9);
}

#[test]
fn a_call_that_is_kept_has_its_time_from_its_arrival_on() {
    let mut end = End::new(Side::Acceptor, false, true);
    end.step(
        Side::Acceptor,
        &Step::Called { flags: WHOLE, method: 0, timeout: Some(70), urgency: DEFAULT_URGENCY, len: 1, answer: None },
    )
    .unwrap();
    let due = end.bench.session.next_deadline().expect("it has a deadline");
    assert_eq!(due.since(end.bench.now), Duration::from_millis(70));
}

/// Half of the window that was taken is told when the peer has little left, though nothing is taken then.
#[test]
fn an_answer_that_leaves_little_credit_has_what_is_due_announced() {
    let mut end = End::new(Side::Acceptor, false, true);
    for call in 0..2 {
        end.step(Side::Acceptor, &Step::Call { len: 1, answer: AnswerKind::One }).unwrap();
        end.bench.written();
        end.step(Side::Acceptor, &Step::Answered { call, flags: WHOLE, len: 500 }).unwrap();
        if call == 0 {
            end.step(Side::Acceptor, &Step::Take { call, drop: false }).unwrap();
            assert_eq!(end.bench.written(), [""; 0]);
        }
    }
    assert_eq!((end.taken, end.bench.written()), (2, vec!["MAX_SESSION".to_owned()]));
}
