//! F4 of docs/PROTOCOL.md §11: while two sessions both wait for turns, what they send differs from the ratio of their weights
//! by a few quanta at most, over whatever interval.

use std::collections::BTreeMap;

use rpc_core::proto::schedule::QUANTUM;

/// The longest frame of a turn: a quantum, and what metadata the calls of the world have.
const FRAME: f64 = QUANTUM as f64 + 7000.0;

/// What one end of a connection sends, session by session.
#[derive(Debug, Default)]
pub(crate) struct Fairness {
    weights: BTreeMap<usize, u16>,
    /// How far one is ahead of the other, in quanta of their own, at the least and at the most since both wait.
    pairs: BTreeMap<(usize, usize), (f64, f64)>,
    broken: Option<String>,
}

impl Fairness {
    /// A session should have this weight.
    pub(crate) fn weigh(&mut self, session: usize, weight: u16) {
        self.weights.insert(session, weight);
    }

    /// A session had a turn, before which it `waited`.
    pub(crate) fn turn(&mut self, session: usize, waited: bool, waits: impl Fn(usize) -> bool, sent: impl Fn(usize) -> u64) {
        let (waits_on, quantum) = (waited && waits(session), |weight: u16| f64::from(weight) * 1024.0);
        let Some(own) = self.weights.get(&session).copied().map(quantum) else { return };
        for (other, weight) in &self.weights {
            if *other == session {
                continue;
            }
            let (pair, sign) = if session < *other { ((session, *other), 1.0) } else { ((*other, session), -1.0) };
            if !waits_on || !waits(*other) {
                self.pairs.remove(&pair);
                continue;
            }
            let theirs = quantum(*weight);
            let ahead = sign * (sent(session) as f64 / own - sent(*other) as f64 / theirs);
            let (least, most) = self.pairs.entry(pair).or_insert((ahead, ahead));
            (*least, *most) = (least.min(ahead), most.max(ahead));
            let bound = 3.0 + FRAME / own + FRAME / theirs;
            if *most - *least > bound {
                let text = format!("F4: sessions {pair:?} came apart by {} quanta, and {bound} are the most", *most - *least);
                self.broken = Some(text);
            }
        }
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        self.broken.clone().map_or(Ok(()), Err)
    }
}
