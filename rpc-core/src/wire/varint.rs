//! Variable-length integers as of RFC 9000 §16: two bits of length, up to 62 bits of value (docs/PROTOCOL.md §2.2).
//! Non-minimal encodings are refused: one value has one form.

use super::DecodeError;

/// The largest value: 2^62 − 1.
pub const MAX: u64 = (1 << 62) - 1;

/// How many bytes `value` takes: 1, 2, 4 or 8.
#[inline]
pub const fn len(value: u64) -> usize {
    if value < 1 << 6 {
        1
    } else if value < 1 << 14 {
        2
    } else if value < 1 << 30 {
        4
    } else {
        8
    }
}

/// How many bytes a value takes that begins with `first`.
#[inline]
pub const fn width(first: u8) -> usize {
    1 << (first >> 6)
}

/// Writes `value` to the front of `out` and returns how many bytes it took.
///
/// # Panics
/// If `value` exceeds [`MAX`] or `out` is shorter than [`len`] says: both are mistakes of the caller, never of a peer.
#[inline]
pub fn write(value: u64, out: &mut [u8]) -> usize {
    if value < 1 << 6 {
        out[0] = value as u8;
        1
    } else if value < 1 << 14 {
        out[..2].copy_from_slice(&(value as u16 | 0x4000).to_be_bytes());
        2
    } else if value < 1 << 30 {
        out[..4].copy_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes());
        4
    } else {
        assert!(value <= MAX, "a varint holds at most 62 bits");
        out[..8].copy_from_slice(&(value | 0xC000_0000_0000_0000).to_be_bytes());
        8
    }
}

/// Appends `value` to `out`.
///
/// # Panics
/// If `value` exceeds [`MAX`].
pub fn push(value: u64, out: &mut Vec<u8>) {
    let mut bytes = [0; 8];
    let n = write(value, &mut bytes);
    out.extend_from_slice(&bytes[..n]);
}

/// Reads one value from the front of `bytes`, which is moved past it.
///
/// # Errors
/// [`DecodeError::Truncated`] if the bytes end within the value, [`DecodeError::NonMinimal`] if a shorter form exists.
/// `bytes` is unchanged then.
#[inline]
pub fn read(bytes: &mut &[u8], field: &'static str) -> Result<u64, DecodeError> {
    match bytes.first() {
        Some(&first) if first < 0x40 => {
            *bytes = &bytes[1..];
            Ok(u64::from(first))
        }
        Some(&first) => read_long(first, bytes, field),
        None => Err(DecodeError::Truncated { field }),
    }
}

fn read_long(first: u8, bytes: &mut &[u8], field: &'static str) -> Result<u64, DecodeError> {
    let (value, n) = match first >> 6 {
        1 => (bytes.first_chunk().map(|own| u64::from(u16::from_be_bytes(*own) & 0x3FFF)), 2),
        2 => (bytes.first_chunk().map(|own| u64::from(u32::from_be_bytes(*own) & 0x3FFF_FFFF)), 4),
        _ => (bytes.first_chunk().map(|own| u64::from_be_bytes(*own) & MAX), 8),
    };
    let Some(value) = value else { return Err(DecodeError::Truncated { field }) };
    if len(value) != n {
        return Err(DecodeError::NonMinimal { field });
    }
    *bytes = &bytes[n..];
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_the_rfc_decode() {
        for (bytes, value) in [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d][..], 494_878_333),
            (&[0x7b, 0xbd][..], 15_293),
            (&[0x25][..], 37),
        ] {
            assert_eq!(read(&mut &bytes[..], "x"), Ok(value));
        }
    }

    #[test]
    fn a_longer_form_than_needed_is_refused() {
        let mut bytes = &[0x40, 0x25][..];
        assert_eq!(read(&mut bytes, "x"), Err(DecodeError::NonMinimal { field: "x" }));
        assert_eq!(bytes.len(), 2, "nothing is taken on an error");
    }

    #[test]
    fn every_prefix_of_three_bytes_is_read_or_refused() {
        for raw in 0..=0xFF_FFFFu32 {
            let bytes = raw.to_be_bytes();
            let mut rest = &bytes[1..];
            if let Ok(value) = read(&mut rest, "x") {
                let mut again = Vec::new();
                push(value, &mut again);
                assert_eq!(again, bytes[1..4 - rest.len()]);
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in 0..=MAX) {
            let mut bytes = Vec::new();
            push(value, &mut bytes);
            prop_assert_eq!(bytes.len(), len(value));
            let mut rest = &bytes[..];
            prop_assert_eq!(read(&mut rest, "x"), Ok(value));
            prop_assert!(rest.is_empty());
        }
    }
}
