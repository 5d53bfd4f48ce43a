//! The connections of this process: a weak list that a driver enters when it starts and leaves when it ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

use rpc_core::id::Side;
use rpc_core::proto::Time;

use crate::state::{Link, lock};

/// Locked when a connection comes or goes, and when somebody asks.
static LIST: Mutex<List> = Mutex::new(List { next: 1, links: BTreeMap::new() });

struct List {
    next: u64,
    links: BTreeMap<u64, (Weak<Link>, Side, Time)>,
}

/// A place in the list, until it is dropped.
pub(crate) struct Listed(u64);

/// A connection of the list.
pub(crate) struct Known {
    pub(crate) id: u64,
    pub(crate) link: Arc<Link>,
    pub(crate) side: Side,
    pub(crate) since: Time,
}

impl Listed {
    pub(crate) fn new(link: &Arc<Link>, side: Side, since: Time) -> Self {
        let mut list = lock(&LIST);
        let id = list.next;
        list.next += 1;
        list.links.insert(id, (Arc::downgrade(link), side, since));
        Self(id)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        lock(&LIST).links.remove(&self.0);
    }
}

/// How many connections there are.
pub(crate) fn len() -> usize {
    lock(&LIST).links.len()
}

/// Connections in the order in which they came, from `from` on, `most` of them at most; and the id of the next one.
pub(crate) fn page(from: u64, most: usize) -> (Vec<Known>, Option<u64>) {
    let list = lock(&LIST);
    let mut range = list.links.range(from..);
    let mut known = Vec::new();
    for (id, (link, side, since)) in range.by_ref().take(most) {
        if let Some(link) = link.upgrade() {
            known.push(Known { id: *id, link, side: *side, since: *since });
        }
    }
    let next = range.next().map(|(id, _)| *id);
    drop(list);
    (known, next)
}
