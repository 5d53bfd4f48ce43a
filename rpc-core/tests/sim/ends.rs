//! How a run ends in the middle of its calls, and what must hold then: C1, C2, C3, C5, E2 and L4 of docs/PROTOCOL.md §11.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rpc_core::code::Code;
use rpc_core::proto::{Closed, Time};
use rpc_core::wire::frame::{GoAway, Reason};

use crate::world::{CLIENT, End, Mutation, Outcome, SERVER, World};

/// What is noted down about calls and about the end, apart from the ends themselves.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// How many calls have been numbered.
    pub(crate) numbers: u64,
    /// The end begins when so many calls are still to be started.
    pub(crate) begin_at: usize,
    pub(crate) begun: bool,
    /// The connection is lost.
    pub(crate) lost: bool,
    /// Nothing that this end writes arrives any more.
    pub(crate) cut: Option<usize>,
    /// These ends have given the other up.
    pub(crate) gone: [bool; 2],
    by: usize,
    deadline: Option<Time>,
    /// How often each call was executed, here or elsewhere.
    executed: BTreeMap<(usize, u64), u32>,
    started: BTreeSet<(usize, u64)>,
    /// Calls whose handler took all of their input.
    pub(crate) took_input: BTreeSet<(usize, u64)>,
}

impl Ledger {
    /// A handler starts.
    pub(crate) fn start(&mut self, call: (usize, u64)) -> Result<(), String> {
        if !self.started.insert(call) {
            return Err(format!("E1: a second handler starts for call {call:?}"));
        }
        self.execute(call)
    }

    fn execute(&mut self, call: (usize, u64)) -> Result<(), String> {
        let times = self.executed.entry(call).or_default();
        *times += 1;
        if *times > 1 { Err(format!("C2: call {call:?} was executed here and elsewhere")) } else { Ok(()) }
    }
}

impl World {
    /// Begins the end when its time has come, and sees it through.
    pub(crate) fn advance_end(&mut self) {
        let Some(end) = self.plan.end else { return };
        let ready = self.nodes.iter().all(|node| node.connection.is_open() && node.sessions.len() == self.sessions)
            && (0..self.sessions).all(|index| self.nodes[self.caller(index)].sessions[&index].live);
        if !self.ledger.begun && ready && self.to_start <= self.ledger.begin_at {
            self.ledger.begun = true;
            self.begin_end(end);
        }
        if !self.ledger.begun {
            return;
        }
        for end in [CLIENT, SERVER] {
            for index in 0..self.sessions {
                if self.nodes[end].sessions[&index].core.is_finished() {
                    self.nodes[end].forget(index);
                }
            }
        }
        let leaves = self.plan.mutation == Some(Mutation::LeaveUnasked) && {
            let node = &self.nodes[self.ledger.by];
            node.sessions.values().all(|attached| attached.core.live() == 0)
        };
        if leaves && !self.ledger.lost {
            self.lose();
        }
        if self.ledger.deadline.is_some_and(|deadline| self.now >= deadline) {
            self.ledger.deadline = None;
            (0..self.sessions).for_each(|index| self.abort(self.ledger.by, index));
        }
    }

    fn begin_end(&mut self, end: End) {
        self.ledger.by = self.rng.below(2);
        let by = self.ledger.by;
        match end {
            End::Drain | End::DrainUntil => {
                if end == End::DrainUntil {
                    self.ledger.deadline = Some(self.now.after(Duration::from_millis(self.rng.below(2000) as u64)));
                }
                let goaway = GoAway { deadline_ms: 0, reason: Reason::new(Code::NO_ERROR, "") };
                self.nodes[by].connection.go_away(&goaway);
                (0..self.sessions).for_each(|index| self.nodes[by].with(index, |core| core.close()));
            }
            End::Close => {
                for index in 0..self.sessions {
                    let by = self.rng.below(2);
                    self.nodes[by].with(index, |core| core.close());
                }
            }
            End::Abort => {
                for index in 0..self.sessions {
                    let by = self.rng.below(2);
                    self.abort(by, index);
                }
            }
            End::Lose => self.lose(),
            End::HalfOpen => self.ledger.cut = Some(by),
        }
    }

    /// What an end's clock says of the other's silence.
    pub(crate) fn keep_alive(&mut self, end: usize) {
        if self.ledger.cut.is_none() || self.ledger.gone[end] || self.plan.mutation == Some(Mutation::IgnoreSilence) {
            return;
        }
        if self.nodes[end].connection.handle_timeout(self.now).is_err() {
            self.ledger.gone[end] = true;
            self.ledger.lost = self.ledger.gone == [true; 2];
            self.give_up(end);
        }
    }

    /// An end is without its connection.
    fn give_up(&mut self, end: usize) {
        for index in 0..self.sessions {
            let attached = self.nodes[end].sessions.get_mut(&index).expect("it is here");
            attached.core.fail(Reason::new(Code::CLOSED, "the connection is lost"));
            self.over(end, index);
        }
    }

    fn abort(&mut self, end: usize, index: usize) {
        let attached = self.nodes[end].sessions.get_mut(&index).expect("it is here");
        if attached.over {
            return;
        }
        let (mut abort, sid) = (attached.core.abort(Reason::new(Code::CLOSED, "enough")), attached.sid);
        if self.plan.mutation == Some(Mutation::DenyReceipt) {
            abort.rx_next = 0;
        }
        self.nodes[end].connection.abort(sid, &abort);
        self.over(end, index);
    }

    /// The connection is gone, and what was under way on it.
    fn lose(&mut self) {
        self.ledger.lost = true;
        [CLIENT, SERVER].into_iter().for_each(|end| self.give_up(end));
    }

    /// A session has failed: its handlers are dropped.
    pub(crate) fn over(&mut self, end: usize, index: usize) {
        self.nodes[end].forget(index);
        if end == self.caller(index) {
            return;
        }
        let (gone, left) = std::mem::take(&mut self.handlers).into_iter().partition(|handler| handler.session == index);
        self.handlers = left;
        let gone: Vec<crate::world::Handler> = gone;
        for handler in gone {
            self.nodes[end].with(index, |core| core.handler_done(handler.key));
        }
    }

    /// A call has its outcome. One that is known not to have run is made elsewhere.
    pub(crate) fn settle_outcome(&mut self, id: (usize, u64), outcome: &Outcome) -> Result<(), String> {
        let Outcome::Failed(code, may_have_run) = *outcome else { return Ok(()) };
        let may_have_run = may_have_run && self.plan.mutation != Some(Mutation::DenyStart);
        if self.plan.end.is_some_and(End::is_orderly) && !self.plan.impatient && (may_have_run || code != Code::CLOSED.0) {
            return Err(format!("C2: call {id:?} failed with code {code} although everything ended in good order"));
        }
        if !may_have_run && self.ledger.started.contains(&id) {
            return Err(format!("E2: call {id:?} is said not to have run, and a handler started"));
        }
        if !may_have_run || self.plan.mutation == Some(Mutation::RetryBlindly) {
            self.ledger.execute(id)?;
        }
        if self.plan.mutation == Some(Mutation::LoseAnswer) {
            return Err("only answers are lost here".into());
        }
        Ok(())
    }

    /// Whether the end has come, where there is one.
    pub(crate) fn has_ended(&self) -> bool {
        self.plan.end.is_none()
            || self.nodes.iter().all(|node| self.ledger.begun && node.sessions.values().all(|attached| attached.over))
    }

    pub(crate) fn check_ends(&self) -> Result<(), String> {
        let Some(end) = self.plan.end else { return Ok(()) };
        if matches!(end, End::Drain) && !self.nodes[self.ledger.by].connection.is_drained() && !self.ledger.lost {
            return Err("C5: the side that went away is not drained".into());
        }
        for index in 0..self.sessions {
            for end_of in [CLIENT, SERVER] {
                let core = &self.nodes[end_of].sessions[&index].core;
                if end.is_orderly() && core.closed().is_none() {
                    return Err(format!("session {index} ended without the word of end {end_of}'s peer"));
                }
                if end.is_orderly() && !self.plan.impatient && core.closed() != Some(Closed { untaken: 0 }) {
                    return Err(format!("session {index}: {:?}, and nobody let go of anything", core.closed()));
                }
                if core.closed() == Some(Closed { untaken: 0 }) {
                    self.check_taken(index, end_of)?;
                }
            }
        }
        Ok(())
    }

    /// C1: the other end's application took everything that `sender` sent in the session.
    fn check_taken(&self, session: usize, sender: usize) -> Result<(), String> {
        for (id, call) in self.calls.iter().filter(|(id, _)| id.0 == session) {
            let withdrawn = call.outcome == Some(Outcome::Dropped) || matches!(call.outcome, Some(Outcome::Failed(..)));
            let taken = if sender == self.caller(session) {
                withdrawn || self.ledger.took_input.contains(id)
            } else {
                // What the server never answered, it never sent.
                !self.ledger.took_input.contains(id) || self.has_answer(*id) || withdrawn
            };
            if !taken {
                return Err(format!("C1: what end {sender} sent for call {id:?} was confirmed and not taken"));
            }
        }
        Ok(())
    }

    fn has_answer(&self, id: (usize, u64)) -> bool {
        // The mutation stands for an application that lost what it was given.
        let lost = self.plan.mutation == Some(Mutation::LoseAnswer) && id.1.is_multiple_of(7);
        !lost && self.calls[&id].outcome == Some(Outcome::Done)
    }
}
