//! Messages back to back in one buffer: what a stream hands over at a time, in both directions. One allocation serves
//! many items, and the credit for them returns in one piece.

/// A queue of complete messages in one buffer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where each message ends in `bytes`.
    ends: Vec<usize>,
    /// How many messages at the front have been taken.
    taken: usize,
    /// Where the message at the front begins in `bytes`.
    start: usize,
}

impl Batch {
    /// An empty batch, without an allocation.
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), ends: Vec::new(), taken: 0, start: 0 }
    }

    /// Appends a message.
    #[inline]
    pub fn push(&mut self, message: &[u8]) {
        self.bytes.extend_from_slice(message);
        self.ends.push(self.bytes.len());
    }

    /// Appends the message that `write` appends to the buffer; where it fails, nothing is appended.
    ///
    /// # Errors
    /// What `write` returned.
    #[inline]
    pub fn push_with<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        let start = self.bytes.len();
        let result = write(&mut self.bytes);
        match result {
            Ok(()) => self.ends.push(self.bytes.len()),
            Err(_) => self.bytes.truncate(start),
        }
        result
    }

    /// The message at the front, which stays there.
    #[inline]
    pub fn front(&self) -> Option<&[u8]> {
        let end = *self.ends.get(self.taken)?;
        Some(&self.bytes[self.start..end])
    }

    /// The messages that wait, from the front on.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = self.start;
        self.ends[self.taken..].iter().map(move |end| {
            let message = &self.bytes[start..*end];
            start = *end;
            message
        })
    }

    /// Removes the message at the front. The buffer is kept for the next ones once all are gone.
    #[inline]
    pub fn pop(&mut self) {
        self.pop_many(1);
    }

    /// Removes `count` messages at the front, or all that there are.
    #[inline]
    pub fn pop_many(&mut self, count: usize) {
        self.taken += count;
        if self.taken >= self.ends.len() {
            self.clear();
        } else if count > 0 {
            self.start = self.ends[self.taken - 1];
        }
    }

    /// How many messages wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.ends.len() - self.taken
    }

    /// Whether none waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes the buffer holds, taken messages included.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Removes all messages and keeps the allocation.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        (self.taken, self.start) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in(messages: Vec<Vec<u8>>) {
            let mut batch = Batch::new();
            for message in &messages {
                batch.push(message);
            }
            for (index, message) in messages.iter().enumerate() {
                prop_assert_eq!(batch.len(), messages.len() - index);
                prop_assert_eq!(batch.front(), Some(&message[..]));
                prop_assert!(batch.iter().eq(messages[index..].iter().map(Vec::as_slice)));
                batch.pop();
            }
            prop_assert!(batch.is_empty());
            prop_assert_eq!(batch.front(), None);
        }
    }

    #[test]
    fn several_messages_leave_at_once_and_never_more_than_there_are() {
        let mut batch = Batch::new();
        [b"one", b"two", b"six"].iter().for_each(|message| batch.push(&message[..]));
        batch.pop_many(0);
        assert_eq!((batch.front(), batch.len()), (Some(&b"one"[..]), 3));
        batch.pop_many(2);
        assert_eq!((batch.front(), batch.len()), (Some(&b"six"[..]), 1));
        batch.pop_many(2);
        assert_eq!((batch.front(), batch.len(), batch.bytes()), (None, 0, 0));
        batch.push(b"ten");
        assert_eq!(batch.front(), Some(&b"ten"[..]));
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let mut batch = Batch::new();
        batch.push(b"one");
        let failed = batch.push_with(|bytes| {
            bytes.extend_from_slice(b"half");
            Err(())
        });
        assert_eq!((failed, batch.len(), batch.bytes()), (Err(()), 1, 3));
        batch.push(b"two");
        batch.pop();
        assert_eq!(batch.front(), Some(&b"two"[..]));
    }
}
