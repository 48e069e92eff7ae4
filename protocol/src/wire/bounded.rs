//! Sequences with a maximum that is part of their type and is checked before they are read.

use std::fmt;
use std::ops::Deref;

use bincode::de::{BorrowDecoder, Decoder};
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{BorrowDecode, Decode, Encode};

/// A sequence that is longer than its type allows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{len} items, at most {max} are allowed")]
pub struct TooMany {
    len: usize,
    max: usize,
}

fn check_len(len: u64, max: usize) -> Result<usize, DecodeError> {
    usize::try_from(len)
        .ok()
        .filter(|&len| len <= max)
        .ok_or_else(|| DecodeError::OtherString(format!("{len} items, at most {max} are allowed")))
}

/// At most `MAX` items.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListMax<T, const MAX: usize>(Vec<T>);

impl<T, const MAX: usize> ListMax<T, MAX> {
    /// The list of these items.
    ///
    /// # Errors
    /// If there are too many.
    pub fn new(items: Vec<T>) -> Result<Self, TooMany> {
        if items.len() > MAX { Err(TooMany { len: items.len(), max: MAX }) } else { Ok(Self(items)) }
    }

    /// The first `MAX` of these items.
    pub fn truncated(items: impl IntoIterator<Item = T>) -> Self {
        Self(items.into_iter().take(MAX).collect())
    }

    /// The items.
    #[must_use]
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T, const MAX: usize> Default for ListMax<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: fmt::Debug, const MAX: usize> fmt::Debug for ListMax<T, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T, const MAX: usize> Deref for ListMax<T, MAX> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'a, T, const MAX: usize> IntoIterator for &'a ListMax<T, MAX> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<T: Encode, const MAX: usize> Encode for ListMax<T, MAX> {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        (self.0.len() as u64).encode(encoder)?;
        self.0.iter().try_for_each(|item| item.encode(encoder))
    }
}

impl<C, T: Decode<C>, const MAX: usize> Decode<C> for ListMax<T, MAX> {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let len = check_len(u64::decode(decoder)?, MAX)?;
        // Grown item by item: a claimed length allocates nothing.
        let mut items = Vec::new();
        for _ in 0..len {
            items.push(T::decode(decoder)?);
        }
        Ok(Self(items))
    }
}

impl<'de, C, T: Decode<C>, const MAX: usize> BorrowDecode<'de, C> for ListMax<T, MAX> {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Self::decode(decoder)
    }
}

/// At most `MAX` bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BytesMax<const MAX: usize>(Vec<u8>);

impl<const MAX: usize> BytesMax<MAX> {
    /// These bytes.
    ///
    /// # Errors
    /// If there are too many.
    pub fn new(bytes: Vec<u8>) -> Result<Self, TooMany> {
        if bytes.len() > MAX { Err(TooMany { len: bytes.len(), max: MAX }) } else { Ok(Self(bytes)) }
    }

    /// The bytes.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        self.0
    }
}

impl<const MAX: usize> fmt::Debug for BytesMax<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl<const MAX: usize> Deref for BytesMax<MAX> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<const MAX: usize> Encode for BytesMax<MAX> {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        use bincode::enc::write::Writer;
        (self.0.len() as u64).encode(encoder)?;
        encoder.writer().write(&self.0)
    }
}

impl<C, const MAX: usize> Decode<C> for BytesMax<MAX> {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        use bincode::de::read::Reader;
        let len = check_len(u64::decode(decoder)?, MAX)?;
        decoder.claim_bytes_read(len)?;
        // At most MAX bytes, which the type's author chose to afford.
        let mut bytes = vec![0; len];
        decoder.reader().read(&mut bytes)?;
        Ok(Self(bytes))
    }
}

impl<'de, C, const MAX: usize> BorrowDecode<'de, C> for BytesMax<MAX> {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Self::decode(decoder)
    }
}

/// At most `MAX` bytes of UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TextMax<const MAX: usize>(String);

impl<const MAX: usize> TextMax<MAX> {
    /// This text.
    ///
    /// # Errors
    /// If it is too long.
    pub fn new(text: impl Into<String>) -> Result<Self, TooMany> {
        let text = text.into();
        if text.len() > MAX { Err(TooMany { len: text.len(), max: MAX }) } else { Ok(Self(text)) }
    }

    /// As much of this text as fits.
    #[must_use]
    pub fn truncated(text: &str) -> Self {
        let mut end = text.len().min(MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Self(text[..end].to_owned())
    }
}

impl<const MAX: usize> fmt::Debug for TextMax<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<const MAX: usize> fmt::Display for TextMax<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<const MAX: usize> Deref for TextMax<MAX> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> Encode for TextMax<MAX> {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        use bincode::enc::write::Writer;
        (self.0.len() as u64).encode(encoder)?;
        encoder.writer().write(self.0.as_bytes())
    }
}

impl<C, const MAX: usize> Decode<C> for TextMax<MAX> {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let bytes = BytesMax::<MAX>::decode(decoder)?;
        let text = String::from_utf8(bytes.0).map_err(|_| DecodeError::Other("text is not UTF-8"))?;
        Ok(Self(text))
    }
}

impl<'de, C, const MAX: usize> BorrowDecode<'de, C> for TextMax<MAX> {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Self::decode(decoder)
    }
}
