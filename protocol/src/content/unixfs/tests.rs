//! The DAGs of `tests/golden/unixfs.json` were built with npm's `ipfs-unixfs-importer` 17.1.1 (profile `unixfs-v1-2025`);
//! the two of 1 GiB show the width of file nodes at 1,024 and 1,025 leaves, the `hamt-*` ones the threshold of folders.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use super::*;

struct Count(BTreeSet<Cid>);

impl BlockSink for Count {
    type Error = Infallible;

    fn put(&mut self, cid: Cid, block: Vec<u8>) -> Result<(), Infallible> {
        assert!(cid.matches(&block));
        let read = Unixfs::read(&cid, &block).expect("what is written can be read");
        assert_eq!(Node::decode(&block).expect("a node").encode(), block, "one canonical form");
        assert!(!matches!(read, Unixfs::Leaf(_)));
        self.0.insert(cid);
        Ok(())
    }
}

fn byte(i: u64, seed: u64) -> u8 {
    (i.wrapping_mul(31).wrapping_add((i >> 8) * 17).wrapping_add((i >> 16) * 7).wrapping_add(seed) & 0xff) as u8
}

fn file(len: u64, seed: u64, sink: &mut Count) -> Part {
    let mut builder = FileBuilder::default();
    // Leaves repeat with a period of sixteen; remembering them makes a gibibyte cheap.
    let mut known: BTreeMap<Vec<u8>, Part> = BTreeMap::new();
    let mut start = 0;
    while start < len || start == 0 {
        let end = len.min(start + CHUNK_BYTES as u64);
        let key = [(end - start).to_le_bytes().to_vec(), vec![byte(start, seed)]].concat();
        let leaf =
            *known.entry(key).or_insert_with(|| Part::leaf(&(start..end).map(|i| byte(i, seed)).collect::<Vec<_>>()));
        let Ok(()) = builder.leaf(leaf, sink);
        start += CHUNK_BYTES as u64;
    }
    let Ok(part) = builder.finish(sink);
    part
}

/// A path below a folder, and the file there; an empty folder has none.
type Below = (Vec<String>, Option<Part>);

fn tree(entries: &[Below], sink: &mut Count) -> Part {
    let mut here: BTreeMap<String, Vec<Below>> = BTreeMap::new();
    for (path, part) in entries {
        if let Some((first, rest)) = path.split_first() {
            here.entry(first.clone()).or_default().push((rest.to_vec(), *part));
        }
    }
    let children = here
        .into_iter()
        .map(|(name, below)| match below.as_slice() {
            [(rest, Some(part))] if rest.is_empty() => (name, *part),
            _ => (name, tree(&below, sink)),
        })
        .collect();
    let Ok(part) = folder(children, sink);
    part
}

fn build(spec: &serde_json::Value, sink: &mut Count) -> Part {
    let number = |value: &serde_json::Value, key: &str| value[key].as_u64().unwrap_or(0);
    if spec.get("file").is_some() {
        return file(number(&spec["file"], "n"), number(&spec["file"], "s"), sink);
    }
    let mut entries = Vec::new();
    let listed = ["dir", "plus"].iter().filter_map(|key| spec[*key].as_array()).flatten();
    for entry in listed {
        let path = entry["path"].as_str().expect("a path").trim_end_matches('/');
        let part = (entry["dir"] != true).then(|| file(number(entry, "n"), number(entry, "s"), sink));
        entries.push((path.split('/').map(str::to_owned).collect(), part));
    }
    if let Some(many) = spec.get("many") {
        let pattern = many["pattern"].as_str().expect("a pattern");
        let (before, rest) = pattern.split_once("%0").expect("a number");
        let (width, after) = rest.split_once('d').expect("a number");
        let width: usize = width.parse().expect("a width");
        for i in 0..number(many, "count") {
            let name = format!("{before}{i:0width$}{after}");
            entries.push((vec![name], Some(file(number(many, "n"), number(many, "s"), sink))));
        }
    }
    tree(&entries, sink)
}

#[test]
fn the_same_cids_as_the_reference_importer() {
    let golden = include_str!("../../../tests/golden/unixfs.json");
    let cases: Vec<serde_json::Value> = serde_json::from_str(golden).expect("golden file");
    assert!(cases.len() >= 20);
    for case in cases {
        let name = case["name"].as_str().expect("a name");
        let part = build(&case["spec"], &mut Count(BTreeSet::new()));
        assert_eq!(part.cid.to_string(), case["cid"].as_str().expect("a cid"), "{name}");
        assert_eq!(part.tsize, case["tsize"].as_u64().expect("a size"), "{name}");
    }
}

#[test]
fn hashes_of_known_names() {
    assert_eq!(hamt::murmur3_64(b"file-000000.bin"), 0xd18b_1503_19e9_f074);
    assert_eq!(hamt::murmur3_64(b"a.txt"), 0x59a0_c469_9554_7089);
}

#[test]
fn names_that_would_leave_the_folder_are_not_safe() {
    for name in ["", ".", "..", "a/b", "a\0b", &"x".repeat(256)] {
        assert!(!is_safe_name(name), "{name:?}");
    }
    assert!(is_safe_name("日本語.txt"));
}

proptest::proptest! {
    #[test]
    fn reading_any_bytes_never_panics(bytes in proptest::collection::vec(0u8.., 0..300)) {
        let cid = dag_pb::cid(&bytes);
        let _ = Unixfs::read(&cid, &bytes);
    }
}
