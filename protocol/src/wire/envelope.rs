//! The frame around every message on a stream: `magic u32 ‖ version u16 ‖ kind u16 ‖ length u32 ‖ payload`, all little
//! endian. A reader knows from the first twelve bytes whether to go on.

use super::codec::{self, Decode, DecodeError, Encode};

/// `bacn`, read as bytes.
const MAGIC: [u8; 4] = *b"bacn";
/// Bytes before the payload.
pub const HEADER_BYTES: usize = 12;

/// A type that travels in an envelope of its own kind.
pub trait Message: Encode + Decode<()> {
    /// Its number; never used again for anything else.
    const KIND: u16;
    /// The longest payload that is read.
    const BYTES_MAX: usize;
}

/// The envelope and payload of `message`.
pub fn seal<M: Message>(message: &M) -> Vec<u8> {
    let payload = codec::encode(message);
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.extend(MAGIC);
    bytes.extend(super::VERSION.to_le_bytes());
    bytes.extend(M::KIND.to_le_bytes());
    bytes.extend(u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(payload);
    bytes
}

/// The payload's length that a header announces for `M`.
///
/// # Errors
/// If the header is not that of an `M` this node understands, or the payload would be too long.
pub fn payload_len<M: Message>(header: &[u8; HEADER_BYTES]) -> Result<usize, DecodeError> {
    if header[..4] != MAGIC {
        return Err(DecodeError::Foreign);
    }
    let version = u16::from_le_bytes([header[4], header[5]]);
    if !(super::VERSION_MIN..=super::VERSION).contains(&version) {
        return Err(DecodeError::Version(version));
    }
    let kind = u16::from_le_bytes([header[6], header[7]]);
    if kind != M::KIND {
        return Err(DecodeError::Kind(kind));
    }
    let len = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
    if len > M::BYTES_MAX {
        return Err(DecodeError::TooLong { len, max: M::BYTES_MAX });
    }
    Ok(len)
}

/// The message in a whole envelope.
///
/// # Errors
/// If the bytes are not exactly one envelope of an `M`.
pub fn open<M: Message>(bytes: &[u8]) -> Result<M, DecodeError> {
    let header = bytes.first_chunk().ok_or_else(|| DecodeError::Malformed("shorter than a header".into()))?;
    let len = payload_len::<M>(header)?;
    let payload = &bytes[HEADER_BYTES..];
    if payload.len() != len {
        return Err(DecodeError::Malformed(format!("{} bytes of payload, {len} announced", payload.len())));
    }
    codec::decode(payload, M::BYTES_MAX)
}
