//! A hash that is the same in every build and on every machine: names are made of it.
//!
//! FNV-1a, 64 bits (draft-eastlake-fnv). The standard library's own hasher may change between releases.

const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

/// 16 hex digits: tells one content from another, but for somebody who makes two alike on purpose.
pub(crate) fn of_bytes(bytes: &[u8]) -> String {
    format!("{:016x}", fnv1a(bytes.iter().copied()))
}

/// The parts are told apart by a NUL after each: ("a", "bc") is not ("ab", "c").
fn hash(parts: &[&str]) -> u64 {
    fnv1a(parts.iter().flat_map(|part| part.bytes().chain([0])))
}

/// 16 hex digits.
pub(crate) fn hex16(parts: &[&str]) -> String {
    format!("{:016x}", hash(parts))
}

/// 8 hex digits.
pub(crate) fn hex8(parts: &[&str]) -> String {
    let [a, b, c, d] = bytes4(parts);
    format!("{a:02x}{b:02x}{c:02x}{d:02x}")
}

/// Four bytes: the halves of the whole, folded.
pub(crate) fn bytes4(parts: &[&str]) -> [u8; 4] {
    let hash = hash(parts).to_be_bytes();
    std::array::from_fn(|place| hash[place] ^ hash[place + 4])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_published_vectors() {
        assert_eq!(fnv1a([].into_iter()), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a".iter().copied()), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar".iter().copied()), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn never_changes() {
        // The names on users' machines are made of these.
        insta::assert_snapshot!(format!("{} {}", hex16(&["web", "eth0"]), hex8(&["web", "eth0", ""])), @"b66a15d1467c122e b687a4b0");
    }

    #[test]
    fn tells_parts_apart() {
        assert_ne!(hex16(&["a", "bc"]), hex16(&["ab", "c"]));
    }
}
