//! The hash trie of large folders: murmur3-x64-64, eight bits a level (UnixFS specification, HAMT sharded directory).

use std::collections::BTreeMap;

use super::dag_pb::{Link, put_bytes, put_varint_field};

/// One level of the trie.
#[derive(Debug, Default)]
pub struct Shard {
    /// Occupied buckets, in order.
    pub buckets: BTreeMap<u8, Entry>,
}

/// What a bucket holds.
#[derive(Debug)]
pub enum Entry {
    /// One entry of the folder.
    Leaf(Link),
    /// Several, told apart by the next byte of their hash.
    Shard(Shard),
}

/// Builds the trie of these entries.
#[must_use]
pub fn build(links: Vec<Link>) -> Shard {
    level(links.into_iter().map(|link| (murmur3_64(link.name.as_bytes()).to_be_bytes(), link)).collect(), 0)
}

/// Entries of one shard, grouped by byte `depth` of their hash. Eight bytes tell 2^64 names apart; should two names
/// collide in all of them, the deepest shard keeps both under neighbouring buckets rather than losing one.
fn level(entries: Vec<([u8; 8], Link)>, depth: usize) -> Shard {
    let mut groups: BTreeMap<u8, Vec<([u8; 8], Link)>> = BTreeMap::new();
    for (index, (hash, link)) in entries.into_iter().enumerate() {
        let bucket = hash.get(depth).copied().unwrap_or((index & 0xff) as u8);
        groups.entry(bucket).or_default().push((hash, link));
    }
    let close = |mut group: Vec<([u8; 8], Link)>| match group.pop() {
        Some((_, link)) if group.is_empty() => Entry::Leaf(link),
        last => {
            group.extend(last);
            Entry::Shard(level(group, depth + 1))
        }
    };
    Shard { buckets: groups.into_iter().map(|(bucket, group)| (bucket, close(group))).collect() }
}

/// The UnixFS data of a shard: type 5, the bit field of occupied buckets (big-endian, leading zeros cut), hash function
/// 0x22, fanout 256.
#[must_use]
pub fn data(shard: &Shard) -> Vec<u8> {
    let mut bits = [0u8; 32];
    for &bucket in shard.buckets.keys() {
        bits[31 - usize::from(bucket / 8)] |= 1 << (bucket % 8);
    }
    let first = bits.iter().position(|&byte| byte != 0).unwrap_or(bits.len());
    let mut data = vec![0x08, 0x05];
    put_bytes(&mut data, 2, &bits[first..]);
    put_varint_field(&mut data, 5, 0x22);
    put_varint_field(&mut data, 6, 256);
    data
}

/// The first 64 bits of murmur3-x64-128 with seed 0 (Appleby's reference, public domain).
#[must_use]
pub fn murmur3_64(bytes: &[u8]) -> u64 {
    const C1: u64 = 0x87c3_7b91_1142_53d5;
    const C2: u64 = 0x4cf5_ad43_2745_937f;
    let mix1 = |k: u64| k.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
    let mix2 = |k: u64| k.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1);
    let word = |part: &[u8]| part.iter().rev().fold(0u64, |word, &byte| word << 8 | u64::from(byte));
    let (mut h1, mut h2) = (0u64, 0u64);
    let mut chunks = bytes.chunks_exact(16);
    for chunk in &mut chunks {
        h1 ^= mix1(word(&chunk[..8]));
        h1 = h1.rotate_left(27).wrapping_add(h2).wrapping_mul(5).wrapping_add(0x52dc_e729);
        h2 ^= mix2(word(&chunk[8..]));
        h2 = h2.rotate_left(31).wrapping_add(h1).wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }
    let tail = chunks.remainder();
    if tail.len() > 8 {
        h2 ^= mix2(word(&tail[8..]));
    }
    if !tail.is_empty() {
        h1 ^= mix1(word(&tail[..tail.len().min(8)]));
    }
    let len = bytes.len() as u64;
    h1 ^= len;
    h2 ^= len;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    let finish = |mut k: u64| {
        k ^= k >> 33;
        k = k.wrapping_mul(0xff51_afd7_ed55_8ccd);
        k ^= k >> 33;
        k = k.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        k ^ k >> 33
    };
    finish(h1).wrapping_add(finish(h2))
}
