//! lib0's encoding, in which every Yjs client writes its messages: variable-length integers, and byte
//! strings that carry their length. It reads hostile bytes: no count is believed before the bytes behind
//! it were seen, and nothing is allocated.
//!
//! Source of the format: the `encoding` and `decoding` modules of the npm package `lib0`.

/// The greatest integer that JavaScript counts exactly, and so the greatest client id: 2^53 - 1.
pub const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// Why bytes cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The bytes end in the middle of a value.
    #[error("the bytes end in the middle of a value")]
    End,
    /// An integer is greater than its place allows.
    #[error("an integer is greater than its place allows")]
    Overflow,
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    Utf8,
}

/// Reads values from the front of `bytes`.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the beginning of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes were read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// The next byte.
    #[inline]
    pub fn byte(&mut self) -> Result<u8, ReadError> {
        let byte = *self.bytes.get(self.at).ok_or(ReadError::End)?;
        self.at += 1;
        Ok(byte)
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], ReadError> {
        if len > self.remaining() {
            return Err(ReadError::End);
        }
        let taken = &self.bytes[self.at..self.at + len];
        self.at += len;
        Ok(taken)
    }

    /// A `varUint` of at most [`MAX_SAFE_INTEGER`].
    #[inline]
    pub fn uint(&mut self) -> Result<u64, ReadError> {
        let (mut value, mut shift) = (0_u64, 0);
        loop {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return if value <= MAX_SAFE_INTEGER { Ok(value) } else { Err(ReadError::Overflow) };
            }
            shift += 7;
            // Eight groups of seven bits hold every allowed value.
            if shift > 49 {
                return Err(ReadError::Overflow);
            }
        }
    }

    /// A `varUint` of at most 2^32 - 1.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, ReadError> {
        u32::try_from(self.uint()?).map_err(|_| ReadError::Overflow)
    }

    /// A `varInt`, signed, of at most [`MAX_SAFE_INTEGER`] either way; its value is of no interest here.
    pub fn skip_int(&mut self) -> Result<(), ReadError> {
        // Six bits in the first byte and seven in each further one: eight bytes hold 55 bits.
        for _ in 0..8 {
            if self.byte()? < 0x80 {
                return Ok(());
            }
        }
        Err(ReadError::Overflow)
    }

    /// A count of values that need at least one byte each: never more than there are bytes left.
    #[inline]
    pub fn count(&mut self) -> Result<usize, ReadError> {
        let count = self.uint()? as usize;
        if count <= self.remaining() { Ok(count) } else { Err(ReadError::End) }
    }

    /// A byte string with its length in front.
    pub fn bytes(&mut self) -> Result<&'a [u8], ReadError> {
        let len = self.count()?;
        self.take(len)
    }

    /// A text with its length in bytes in front.
    pub fn text(&mut self) -> Result<&'a str, ReadError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| ReadError::Utf8)
    }
}

/// Appends a `varUint`.
pub fn write_uint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// Appends a byte string with its length in front.
pub fn write_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    write_uint(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_come_back_and_too_great_ones_are_refused() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), MAX_SAFE_INTEGER] {
            let mut bytes = Vec::new();
            write_uint(&mut bytes, value);
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.uint(), Ok(value));
            assert!(reader.is_empty());
        }
        let mut bytes = Vec::new();
        write_uint(&mut bytes, MAX_SAFE_INTEGER + 1);
        assert_eq!(Reader::new(&bytes).uint(), Err(ReadError::Overflow));
        assert_eq!(Reader::new(&[0xff; 20]).uint(), Err(ReadError::Overflow));
        assert_eq!(Reader::new(&[0xff; 3]).uint(), Err(ReadError::End));
    }

    #[test]
    fn a_declared_length_is_not_believed() {
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0x7f]).count(), Err(ReadError::End));
        assert_eq!(Reader::new(&[5, b'a']).bytes(), Err(ReadError::End));
        assert_eq!(Reader::new(&[1, 0xff]).text(), Err(ReadError::Utf8));
    }
}
