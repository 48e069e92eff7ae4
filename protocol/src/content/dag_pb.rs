//! dag-pb nodes, read and written in their one canonical form (IPLD dag-pb specification): links before data, each link
//! with hash, name and size.

use super::{Cid, Codec};

/// One link of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// The child.
    pub cid: Cid,
    /// Its name; empty in files.
    pub name: String,
    /// Bytes of the child's block and of everything below it.
    pub tsize: u64,
}

/// A node: links and data.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Node {
    /// The children, in order.
    pub links: Vec<Link>,
    /// What the application wrote; UnixFS here.
    pub data: Vec<u8>,
}

/// A block that is not a node of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a dag-pb node: {0}")]
pub struct MalformedNode(pub &'static str);

impl Node {
    /// The node's block.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut block = Vec::with_capacity(self.encoded_len());
        for link in &self.links {
            let mut body = Vec::with_capacity(64 + link.name.len());
            put_bytes(&mut body, 1, &link.cid.to_bytes());
            put_bytes(&mut body, 2, link.name.as_bytes());
            put_varint_field(&mut body, 3, link.tsize);
            put_bytes(&mut block, 2, &body);
        }
        put_bytes(&mut block, 1, &self.data);
        block
    }

    /// The length of [`Node::encode`], without encoding.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let links: usize = self.links.iter().map(|link| link_len(&link.name, link.tsize)).sum();
        links + 1 + varint_len(self.data.len() as u64) + self.data.len()
    }

    /// The node in `block`.
    ///
    /// # Errors
    /// If the block is not a dag-pb node, or links to content that is not stored here.
    pub fn decode(block: &[u8]) -> Result<Self, MalformedNode> {
        let mut node = Self::default();
        let mut reader = Reader(block);
        while let Some((field, value)) = reader.field()? {
            match (field, value) {
                (2, Value::Bytes(bytes)) => node.links.push(decode_link(bytes)?),
                (1, Value::Bytes(bytes)) => node.data = bytes.to_vec(),
                _ => return Err(MalformedNode("unknown field")),
            }
        }
        Ok(node)
    }
}

fn decode_link(bytes: &[u8]) -> Result<Link, MalformedNode> {
    let (mut cid, mut name, mut tsize) = (None, String::new(), 0);
    let mut reader = Reader(bytes);
    while let Some((field, value)) = reader.field()? {
        match (field, value) {
            (1, Value::Bytes(bytes)) => {
                cid = Some(Cid::from_bytes(bytes).map_err(|_| MalformedNode("a link to content of another kind"))?);
            }
            (2, Value::Bytes(bytes)) => {
                name = String::from_utf8(bytes.to_vec()).map_err(|_| MalformedNode("a link's name is not UTF-8"))?;
            }
            (3, Value::Varint(value)) => tsize = value,
            _ => return Err(MalformedNode("unknown field in a link")),
        }
    }
    Ok(Link { cid: cid.ok_or(MalformedNode("a link without a hash"))?, name, tsize })
}

/// Bytes of an encoded CID: version, codec, hash function, hash length, 32 bytes of hash.
const CID_BYTES: usize = 36;

/// Bytes that a link takes in its node.
#[must_use]
pub fn link_len(name: &str, tsize: u64) -> usize {
    let body = 2 + CID_BYTES + 1 + varint_len(name.len() as u64) + name.len() + 1 + varint_len(tsize);
    1 + varint_len(body as u64) + body
}

/// The CID of a dag-pb block.
#[must_use]
pub fn cid(block: &[u8]) -> Cid {
    Cid::of(Codec::DagPb, block)
}

pub(super) fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

pub(super) fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

pub(super) fn put_varint_field(bytes: &mut Vec<u8>, field: u8, value: u64) {
    bytes.push(field << 3);
    put_varint(bytes, value);
}

pub(super) fn put_bytes(bytes: &mut Vec<u8>, field: u8, value: &[u8]) {
    bytes.push(field << 3 | 2);
    put_varint(bytes, value.len() as u64);
    bytes.extend_from_slice(value);
}

pub(super) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
}

/// Reads protobuf fields of the two wire types that dag-pb and UnixFS use.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn field(&mut self) -> Result<Option<(u64, Value<'a>)>, MalformedNode> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| MalformedNode("a length is too large"))?;
                let (bytes, rest) = self.0.split_at_checked(len).ok_or(MalformedNode("cut short"))?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            _ => return Err(MalformedNode("unknown wire type")),
        };
        Ok(Some((key >> 3, value)))
    }

    fn varint(&mut self) -> Result<u64, MalformedNode> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(MalformedNode("cut short"))?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(MalformedNode("a number is too long"))
    }
}
