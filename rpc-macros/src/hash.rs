//! The 64-bit hashes of the wire: a method's identity and a service's fingerprint.

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// The identity of a method: FNV-1a over "Service/method". The slash keeps `Ab/c` and `A/bc` apart.
pub(crate) fn method(service: &str, method: &str) -> u64 {
    fold(format!("{service}/{method}").bytes())
}

/// The fingerprint of a service: FNV-1a over the little-endian bytes of its methods' hashes, lowest hash first.
pub(crate) fn fingerprint(sorted: impl IntoIterator<Item = u64>) -> u64 {
    fold(sorted.into_iter().flat_map(u64::to_le_bytes))
}

fn fold(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fold_is_fnv_1a_as_published() {
        assert_eq!(fold("".bytes()), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fold("a".bytes()), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fold("foobar".bytes()), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn the_hash_of_a_method_is_part_of_the_wire() {
        assert_eq!(method("Kv", "get"), fold("Kv/get".bytes()));
        assert_ne!(method("Ab", "c"), method("A", "bc"));
    }

    #[test]
    fn an_empty_service_has_a_fingerprint() {
        assert_eq!(fingerprint([]), OFFSET);
        assert_ne!(fingerprint([1, 2]), fingerprint([2, 1]));
    }
}
