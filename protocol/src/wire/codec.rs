//! The one place that knows bincode.
//!
//! Little-endian, fixed-size integers, a limit per call. Decoding consumes every byte and the value must encode to the
//! same bytes again, so that each value has exactly one form and a hash or signature over it means one thing. Wire types
//! hold no floats, no `usize`, no hash maps, no recursion and no sequences of zero-sized elements; sequences are
//! [`super::bounded`], so a claimed length is checked before anything is allocated.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
pub use bincode::{Decode, Encode};

/// How much more memory than wire bytes a value may claim while it is decoded (`Vec` headers against 8-byte counts).
const MEMORY_PER_BYTE: usize = 8;

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// More bytes than this kind may have.
    #[error("{len} bytes, at most {max} are allowed")]
    TooLong {
        /// Bytes offered.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Not a value of the type, or too short.
    #[error("malformed: {0}")]
    Malformed(String),
    /// Bytes are left over, or the value has another canonical form.
    #[error("not canonical")]
    NotCanonical,
    /// The envelope belongs to something else.
    #[error("not a bacnode message")]
    Foreign,
    /// A wire version that this node does not speak.
    #[error("wire version {0} is not spoken here")]
    Version(u16),
    /// A kind that this node does not know.
    #[error("message kind {0} is not known here")]
    Kind(u16),
}

impl DecodeError {
    /// Whether no honest node of any version sends this.
    #[must_use]
    pub fn is_nonsense(&self) -> bool {
        !matches!(self, Self::Version(_) | Self::Kind(_))
    }
}

fn config<const LIMIT: usize>() -> Configuration<LittleEndian, Fixint, Limit<LIMIT>> {
    bincode::config::standard().with_little_endian().with_fixed_int_encoding().with_limit::<LIMIT>()
}

/// A limit on the memory claimed while decoding; the bytes are checked against the caller's own maximum first.
const MEMORY_MAX: usize = MEMORY_PER_BYTE * (1 << 20);

/// The bytes of `value`.
///
/// # Panics
/// Never for wire types: writing to a vector cannot fail, and none of them refuses to encode.
pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    let config = bincode::config::standard().with_little_endian().with_fixed_int_encoding();
    bincode::encode_to_vec(value, config).expect("wire types encode into memory")
}

/// The value in `bytes`, which may be at most `max` long.
///
/// # Errors
/// If there are more bytes, if they are not such a value, or not its canonical form.
pub fn decode<T: Decode<()> + Encode>(bytes: &[u8], max: usize) -> Result<T, DecodeError> {
    if bytes.len() > max {
        return Err(DecodeError::TooLong { len: bytes.len(), max });
    }
    let (value, consumed) = bincode::decode_from_slice::<T, _>(bytes, config::<MEMORY_MAX>())
        .map_err(|error| DecodeError::Malformed(error.to_string()))?;
    if consumed != bytes.len() || encode(&value) != bytes {
        return Err(DecodeError::NotCanonical);
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::bounded::{BytesMax, ListMax};

    #[test]
    fn a_lying_length_allocates_nothing() {
        let claim = (1u64 << 40).to_le_bytes();
        assert!(decode::<ListMax<u64, 8>>(&claim, 1024).is_err());
        assert!(decode::<BytesMax<8>>(&claim, 1024).is_err());
    }

    #[test]
    fn left_over_bytes_are_refused() {
        assert_eq!(decode::<u16>(&[1, 0], 8), Ok(1));
        assert_eq!(decode::<u16>(&[1, 0, 0], 8), Err(DecodeError::NotCanonical));
        assert_eq!(decode::<u16>(&[1, 0, 0], 2), Err(DecodeError::TooLong { len: 3, max: 2 }));
    }
}
