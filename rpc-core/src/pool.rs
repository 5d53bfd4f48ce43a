//! Buffers of messages, kept by the thread that let go of them. Of small ones a call needs two or three, and with many calls
//! in flight the allocator's own fast path is too short for them; of large ones a few save the system's pages, which the
//! allocator gives back and asks for again. No other room is imported here.

use std::cell::RefCell;

use bytes::Bytes;

/// Buffers that a thread keeps.
const KEPT: usize = 128;

/// The largest buffer that is kept, in bytes: with [`KEPT`], half a MiB a thread at the most.
const LARGEST: usize = 4096;

/// Room of a new buffer, in bytes: most small calls fit.
const ROOM: usize = 128;

/// From this size on a buffer is large, in bytes. What lies between is neither kept nor missed.
pub const LARGE_FROM: usize = 64 * 1024;

/// What a thread keeps in large buffers, in bytes: two messages of a MiB. The allocator gives memory of that size back to the
/// system when there is much of it, and to have its pages again costs more than to copy them.
const KEPT_LARGE: usize = 2 * (1024 + 1) * 1024;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static LARGE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer.
#[inline]
pub fn take() -> Vec<u8> {
    // Without thread-locals (a thread that ends) there is still the allocator.
    let kept = BUFFERS.try_with(|buffers| buffers.borrow_mut().pop()).ok().flatten();
    kept.unwrap_or_else(|| Vec::with_capacity(ROOM))
}

/// A buffer with a copy of `bytes`.
#[inline]
pub fn copy(bytes: &[u8]) -> Vec<u8> {
    if bytes.len() > LARGEST {
        return bytes.to_vec();
    }
    let mut buffer = take();
    buffer.extend_from_slice(bytes);
    buffer
}

/// An empty buffer for `len` bytes of a large message. One that is kept is taken where it is larger by no more than
/// a quarter.
pub fn large(len: usize) -> Vec<u8> {
    let fits = |buffer: &Vec<u8>| (len..=len + len / 4).contains(&buffer.capacity());
    let kept = LARGE.try_with(|large| {
        let mut large = large.borrow_mut();
        large.iter().rposition(fits).map(|at| large.remove(at))
    });
    kept.ok().flatten().unwrap_or_else(|| Vec::with_capacity(len))
}

/// Takes a buffer back that is not needed any more.
#[inline]
pub fn give(mut buffer: Vec<u8>) {
    if (1..=LARGEST).contains(&buffer.capacity()) {
        buffer.clear();
        let _ = BUFFERS.try_with(|buffers| {
            let mut buffers = buffers.borrow_mut();
            if buffers.len() < KEPT {
                buffers.push(buffer);
            }
        });
    } else if (LARGE_FROM..=KEPT_LARGE).contains(&buffer.capacity()) {
        give_large(buffer);
    }
}

/// The newest are kept: those before them may be of sizes that do not come any more.
#[cold]
fn give_large(mut buffer: Vec<u8>) {
    buffer.clear();
    let _ = LARGE.try_with(|large| {
        let mut large = large.borrow_mut();
        large.push(buffer);
        while large.iter().map(Vec::capacity).sum::<usize>() > KEPT_LARGE {
            large.remove(0);
        }
    });
}

/// A buffer that comes back when nobody has a part of it any more.
struct Lent(Vec<u8>);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        give(std::mem::take(&mut self.0));
    }
}

/// A message whose parts can be shared, until the last of them is gone.
pub fn lend(message: Vec<u8>) -> Bytes {
    Bytes::from_owner(Lent(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_empty_and_a_large_one_does_not() {
        give(vec![1, 2, 3]);
        assert_eq!(take(), Vec::<u8>::new());
        give(vec![0; LARGEST + 1]);
        assert!(take().capacity() <= LARGEST);
        assert_eq!(copy(&[7; LARGEST + 1]).len(), LARGEST + 1);
        (0..2 * KEPT).for_each(|_| give(vec![0; 8]));
        BUFFERS.with(|buffers| assert_eq!(buffers.borrow().len(), KEPT));
    }
    #[test]
    fn a_large_buffer_comes_back_for_a_message_of_its_size_and_no_smaller_one() {
        let (kept, place) = (vec![1; LARGE_FROM], |buffer: &Vec<u8>| buffer.as_ptr());
        let at = place(&kept);
        give(kept);
        assert_ne!(place(&large(LARGE_FROM * 3 / 4)), at, "a quarter of it would lie waste");
        assert_ne!(place(&large(LARGE_FROM + 1)), at);
        let back = large(LARGE_FROM * 4 / 5 + 1);
        assert_eq!((place(&back), back.len()), (at, 0));
        assert_ne!(place(&large(LARGE_FROM)), at, "it is out");
    }

    #[test]
    fn large_buffers_are_kept_up_to_a_bound_and_the_newest_of_them() {
        let kept = || LARGE.with(|large| large.borrow().iter().map(Vec::capacity).collect::<Vec<_>>());
        give(vec![0; LARGE_FROM - 1]);
        give(vec![0; KEPT_LARGE + 1]);
        assert_eq!(kept(), Vec::<usize>::new());
        (0..100).for_each(|_| give(vec![0; LARGE_FROM]));
        assert!(kept().iter().sum::<usize>() <= KEPT_LARGE);
        give(vec![0; KEPT_LARGE]);
        assert_eq!(kept(), [KEPT_LARGE]);
    }

    #[test]
    fn a_buffer_that_is_lent_comes_back_when_the_last_part_is_gone() {
        let message = lend(vec![7; LARGE_FROM]);
        let (at, part) = (message.as_ptr(), message.slice(1..2));
        drop(message);
        let other = large(LARGE_FROM);
        assert_ne!(other.as_ptr(), at);
        assert_eq!(part, [7][..]);
        drop(part);
        let back = large(LARGE_FROM);
        assert_eq!(back.as_ptr(), at);
    }
}
