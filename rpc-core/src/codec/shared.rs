//! Bytes that are handed on as a part of their message: who takes a megabyte gets the one that came, and no copy of it.
//!
//! serde knows of borrowing, and of nothing that is shared. So a message says who it is while it is decoded ([`lend`]), and
//! [`Shared`] looks there where the value that is decoded is [`Bytes`].

use std::any::{Any, TypeId};
use std::borrow::Cow;
use std::cell::RefCell;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer};

use super::wire::ByteSlice;
use crate::pool::LARGE_FROM;

/// A part that is smaller than this share of its message is copied, so that few bytes do not keep many in memory.
const SHARE: usize = 2;

thread_local! {
    static MESSAGE: RefCell<Bytes> = const { RefCell::new(Bytes::new()) };
}

/// A value that is a part of its message, where it is [`Bytes`] and much of it. On the wire it looks as what it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Shared<T>(pub T);

impl<T> Shared<T> {
    /// The value.
    #[inline]
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// Takes back what was lent, also where a `Deserialize` implementation panics; what was lent before is lent again.
struct Return(Bytes);

impl Drop for Return {
    fn drop(&mut self) {
        let lent = MESSAGE.replace(std::mem::take(&mut self.0));
        drop(lent);
    }
}

/// Runs `decode` with parts of `message` for those who can share them.
pub fn lend<R>(message: &Bytes, decode: impl FnOnce() -> R) -> R {
    let _return = Return(MESSAGE.replace(message.clone()));
    decode()
}

/// `bytes` as a part of the message that is being decoded, if they are and it is worth it.
#[inline]
fn part(bytes: &[u8]) -> Option<Bytes> {
    if bytes.len() < LARGE_FROM / SHARE {
        return None;
    }
    MESSAGE.with_borrow(|message| {
        let (own, its) = (bytes.as_ptr_range(), message.as_ptr_range());
        let within = its.start <= own.start && own.end <= its.end;
        (within && bytes.len() >= message.len() / SHARE).then(|| message.slice_ref(bytes))
    })
}

impl<'de, T> Deserialize<'de> for Shared<T>
where
    T: Deserialize<'de> + 'static,
{
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if TypeId::of::<T>() != TypeId::of::<Bytes>() {
            return T::deserialize(deserializer).map(Self);
        }
        let mut bytes = Some(match ByteSlice::deserialize(deserializer)?.into_inner() {
            Cow::Owned(bytes) => bytes.into(),
            Cow::Borrowed(bytes) => part(bytes).unwrap_or_else(|| Bytes::copy_from_slice(bytes)),
        });
        let same = (&mut bytes as &mut dyn Any).downcast_mut::<Option<T>>().and_then(Option::take);
        Ok(Self(same.expect("it is of the same type")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Codec, DecodeLimits};
    use super::*;

    fn encoded(len: usize) -> Vec<u8> {
        let mut out = Vec::new();
        Codec::Postcard.encode(&(7u8, Bytes::from(vec![7; len]), "behind"), &mut out).unwrap();
        out
    }

    /// What is decoded, and whether it is a part of the message.
    fn decoded(message: &Bytes, limits: Option<&DecodeLimits>) -> (Bytes, bool) {
        let decode = || Codec::Postcard.decode::<(u8, Shared<Bytes>, Shared<String>)>(message, limits).unwrap();
        let (first, Shared(bytes), last) = lend(message, decode);
        assert_eq!((first, &*last.0), (7, "behind"));
        assert!(bytes.iter().all(|byte| *byte == 7));
        let is_part = message.as_ptr_range().contains(&bytes.as_ptr());
        (bytes, is_part)
    }

    #[test]
    fn much_of_a_message_is_shared_and_little_is_copied() {
        for limits in [None, Some(&DecodeLimits::default())] {
            for (len, shared) in [(LARGE_FROM, true), (LARGE_FROM / 2, true), (LARGE_FROM / 2 - 1, false), (0, false)] {
                let message = Bytes::from(encoded(len));
                let (bytes, is_part) = decoded(&message, limits);
                assert_eq!((bytes.len(), is_part), (len, shared));
            }
        }
        // Less than half of what it would keep.
        let mut out = Vec::new();
        let (less, more) = (Bytes::from(vec![1; LARGE_FROM]), Bytes::from(vec![2; 2 * LARGE_FROM]));
        Codec::Postcard.encode(&(&less, &more), &mut out).unwrap();
        let message = Bytes::from(out);
        let decode = || Codec::Postcard.decode::<(Shared<Bytes>, Shared<Bytes>)>(&message, None).unwrap();
        let (first, second) = lend(&message, decode);
        assert_eq!((&first.0, &second.0), (&less, &more));
        let is_part = |bytes: &Bytes| message.as_ptr_range().contains(&bytes.as_ptr());
        assert_eq!((is_part(&first.0), is_part(&second.0)), (false, true));
    }

    #[test]
    fn only_the_message_that_is_decoded_is_shared() {
        let (outer, inner) = (Bytes::from(encoded(LARGE_FROM)), Bytes::from(encoded(LARGE_FROM)));
        let read = |message: &Bytes| Codec::Postcard.decode::<(u8, Shared<Bytes>, String)>(message, None).unwrap().1.0;
        let is_part = |bytes: &Bytes, of: &Bytes| of.as_ptr_range().contains(&bytes.as_ptr());
        lend(&outer, || {
            assert!(!is_part(&read(&inner), &inner), "another one is lent");
            assert!(is_part(&lend(&inner, || read(&inner)), &inner));
            assert!(is_part(&read(&outer), &outer), "it is lent again");
        });
        let panicked = std::panic::catch_unwind(|| lend(&outer, || panic!("on purpose")));
        assert!(panicked.is_err());
        assert!(!is_part(&read(&outer), &outer), "nothing is lent");
    }
}
