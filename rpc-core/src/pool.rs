//! Buffers of small messages, kept by the thread that let go of them: a call needs two or three, and with many calls in
//! flight the allocator's own fast path is too short for them. No other room is imported here.

use std::cell::RefCell;

/// Buffers that a thread keeps.
const KEPT: usize = 128;

/// The largest buffer that is kept, in bytes: with [`KEPT`], half a MiB a thread at the most.
const LARGEST: usize = 4096;

/// Room of a new buffer, in bytes: most small calls fit.
const ROOM: usize = 128;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
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
    }
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
}
