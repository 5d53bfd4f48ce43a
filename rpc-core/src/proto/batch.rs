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
}

impl Batch {
    /// An empty batch, without an allocation.
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), ends: Vec::new(), taken: 0 }
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
        let start = if self.taken == 0 { 0 } else { self.ends[self.taken - 1] };
        Some(&self.bytes[start..end])
    }

    /// Removes the message at the front. The buffer is kept for the next ones once all are gone.
    #[inline]
    pub fn pop(&mut self) {
        self.taken += 1;
        if self.taken >= self.ends.len() {
            self.clear();
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
        self.taken = 0;
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
                batch.pop();
            }
            prop_assert!(batch.is_empty());
            prop_assert_eq!(batch.front(), None);
        }
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
