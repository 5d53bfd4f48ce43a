//! The sessions of a connection by slot: those in which something happens, and those at rest, which are a few bytes each.

use std::sync::Arc;

use rpc_core::proto::Resting;
use rpc_core::proto::outbox::SessionSlot;

use super::Entry;
use crate::state::SessionState;

/// The numbers of an entry that are kept with its session: its sid, its service, its codec.
pub(super) const OWN: usize = 3;

enum Place {
    Free,
    /// Boxed, so that the table is small where most are at rest.
    Awake(Box<Entry>),
    Resting(Resting),
}

/// The table.
#[derive(Default)]
pub(super) struct Sessions {
    places: Vec<Place>,
    free: Vec<u32>,
    /// How many are at rest.
    resting: usize,
}

impl Sessions {
    /// How many sessions there are.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The slot that the next session will have.
    pub(super) fn next_slot(&self) -> SessionSlot {
        SessionSlot(self.free.last().copied().unwrap_or(self.places.len() as u32))
    }

    pub(super) fn insert(&mut self, entry: Entry) {
        self.place(Place::Awake(Box::new(entry)));
    }

    pub(super) fn insert_resting(&mut self, resting: Resting) {
        self.resting += 1;
        self.place(Place::Resting(resting));
    }

    fn place(&mut self, place: Place) {
        match self.free.pop() {
            Some(slot) => self.places[slot as usize] = place,
            None => self.places.push(place),
        }
    }

    /// A session that is awake.
    #[inline]
    pub(super) fn get(&self, slot: SessionSlot) -> Option<&Entry> {
        match self.places.get(slot.0 as usize) {
            Some(Place::Awake(entry)) => Some(entry),
            _ => None,
        }
    }

    pub(super) fn get_mut(&mut self, slot: SessionSlot) -> Option<&mut Entry> {
        match self.places.get_mut(slot.0 as usize) {
            Some(Place::Awake(entry)) => Some(entry),
            _ => None,
        }
    }

    /// A session at rest.
    pub(super) fn resting(&self, slot: SessionSlot) -> Option<&Resting> {
        match self.places.get(slot.0 as usize) {
            Some(Place::Resting(resting)) => Some(resting),
            _ => None,
        }
    }

    /// A session at rest is awake again.
    pub(super) fn woken(&mut self, slot: SessionSlot, entry: Entry) {
        debug_assert!(self.resting(slot).is_some());
        self.resting -= 1;
        self.places[slot.0 as usize] = Place::Awake(Box::new(entry));
    }

    /// Frees a slot. Yields what was awake there.
    pub(super) fn remove(&mut self, slot: SessionSlot) -> Option<Entry> {
        let place = self.places.get_mut(slot.0 as usize)?;
        let place = std::mem::replace(place, Place::Free);
        if !matches!(place, Place::Free) {
            self.free.push(slot.0);
        }
        match place {
            Place::Awake(entry) => Some(*entry),
            Place::Resting(_) => {
                self.resting -= 1;
                None
            }
            Place::Free => None,
        }
    }

    pub(super) fn awake(&self) -> impl Iterator<Item = &Entry> {
        self.places.iter().filter_map(|place| match place {
            Place::Awake(entry) => Some(&**entry),
            _ => None,
        })
    }

    /// How many are awake and at rest.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.places.len() - self.free.len() - self.resting, self.resting)
    }

    /// Every session with its sid, in the order of the slots.
    pub(super) fn sids(&self) -> impl Iterator<Item = (u64, SessionSlot)> {
        self.places.iter().zip(0..).filter_map(|(place, slot)| {
            let sid = match place {
                Place::Free => return None,
                Place::Awake(entry) => entry.sid.0,
                // The first of `OWN` numbers.
                Place::Resting(resting) => resting.first(),
            };
            Some((sid, SessionSlot(slot)))
        })
    }

    /// All slots, those that are free among them.
    pub(super) fn slots(&self) -> impl Iterator<Item = SessionSlot> + use<> {
        (0..self.places.len() as u32).map(SessionSlot)
    }

    pub(super) fn find(&self, session: &Arc<SessionState>) -> Option<SessionSlot> {
        self.slots().find(|slot| self.get(*slot).is_some_and(|entry| Arc::ptr_eq(&entry.state, session)))
    }

    /// Lays every session to rest that `rest` can write down.
    pub(super) fn lay_to_rest(&mut self, mut rest: impl FnMut(&mut Entry) -> Option<Resting>) {
        for place in &mut self.places {
            if let Place::Awake(entry) = place
                && let Some(resting) = rest(entry)
            {
                *place = Place::Resting(resting);
                self.resting += 1;
            }
        }
    }
}
