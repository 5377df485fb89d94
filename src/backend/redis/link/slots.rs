//! The slots of a cluster: which one a key is in, and which node has which.

use redis::Value;

use super::{address::Address, wire::read_bytes};

/// How many there are.
pub(super) const SLOTS: usize = 16_384;

/// Slots that one master has.
pub(super) struct Range {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) master: Address,
}

/// The slot of a key or a channel: what stands in its first braces decides, if anything stands there.
pub(super) fn slot_of(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let tag = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
    crc16(tag.as_bytes()) % SLOTS as u16
}

/// What a node answers to CLUSTER SLOTS. One that does not know its own host's name is where it was asked.
pub(super) fn read_ranges(value: Value, asked: &Address) -> Option<Vec<Range>> {
    let Value::Array(ranges) = value else { return None };
    ranges.into_iter().map(|range| read_range(range, asked)).collect()
}

fn read_range(value: Value, asked: &Address) -> Option<Range> {
    let Value::Array(parts) = value else { return None };
    let mut parts = parts.into_iter();
    let (Value::Int(first), Value::Int(last)) = (parts.next()?, parts.next()?) else { return None };
    let Value::Array(node) = parts.next()? else { return None };
    let mut node = node.into_iter();
    let host = read_bytes(node.next()?).unwrap_or_default();
    let Value::Int(port) = node.next()? else { return None };
    let (first, last) = (first.try_into().ok()?, last.try_into().ok()?);
    let valid = first <= last && usize::from(last) < SLOTS;
    let master = asked.sibling(std::str::from_utf8(&host).ok()?, port.try_into().ok()?);
    valid.then_some(Range { first, last, master })
}

/// The checksum that Redis uses, CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| crc << 8 ^ CRC16[usize::from((crc >> 8) as u8 ^ byte)])
}

const CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_the_one_that_redis_says() {
        // As CLUSTER KEYSLOT answers.
        for (key, slot) in [
            ("123456789", 12_739),
            ("foo", 12_182),
            ("{foo}:m", 12_182),
            ("a{foo}{bar}", 12_182),
            ("{}foo", 9_500),
        ] {
            assert_eq!(slot_of(key), slot, "{key}");
        }
    }
}
