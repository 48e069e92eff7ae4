//! Content on a real disk: in, out, over a stream that breaks, and swept.

use std::collections::HashSet;
use std::io::Cursor;

use bacnode_protocol::wire::dag::DAG_HEADER_BYTES;

use super::*;
use crate::content::transfer::TransferError;

struct Place {
    content: Content,
    dir: tempfile::TempDir,
}

fn place() -> Place {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::open(dir.path()).expect("a store");
    Place { content: Content::open(store, dir.path(), 1 << 30).expect("content"), dir }
}

const LIMITS: Limits = Limits { bytes: 1 << 30, entries: 1000 };

fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

/// A folder with small files, a large one, repeated content and an empty folder.
fn folder(dir: &Path) -> PathBuf {
    let folder = dir.join("folder");
    std::fs::create_dir_all(folder.join("deep/empty")).expect("folders");
    let large = bytes(3_500_000, 7);
    let repeated = [&large[..1 << 20], &large[..1 << 20], &large[..100]].concat();
    for (name, content) in [
        ("small.txt", b"small".to_vec()),
        ("none", Vec::new()),
        ("deep/large.bin", large),
        ("deep/repeated.bin", repeated),
        ("deep/middle.bin", bytes(200_000, 9)),
    ] {
        std::fs::write(folder.join(name), content).expect("a file");
    }
    folder
}

fn tree(dir: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let (mut found, mut stack) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(path) = stack.pop() {
        for entry in std::fs::read_dir(&path).expect("a folder").flatten() {
            let path = entry.path();
            let name = path.strip_prefix(dir).expect("below").to_owned();
            if path.is_dir() {
                found.push((name, None));
                stack.push(path);
            } else {
                found.push((name, Some(std::fs::read(&path).expect("a file"))));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_folder_comes_out_as_it_went_in() {
    let place = place();
    let source = folder(place.dir.path());
    let imported = place.content.import(&source, LIMITS, false, "user").expect("imported");
    let target = place.dir.path().join("out");
    place.content.export(&imported.root, &target).expect("exported");
    assert_eq!(tree(&target), tree(&source));
    assert_eq!(place.content.size(&imported.root).expect("a size"), imported.size);
    // The same content has the same name, whether it is moved or copied.
    let again = place.content.import(&source, LIMITS, true, "user").expect("imported");
    assert_eq!(again.root, imported.root);
    let mount = place.content.mount(&imported.root).expect("mounted");
    assert_eq!(tree(mount.path()), tree(&target));
}

#[test]
fn what_is_no_file_is_refused_by_name() {
    let place = place();
    let source = folder(place.dir.path());
    std::os::unix::fs::symlink("/etc/passwd", source.join("deep/way-out")).expect("a link");
    let refused = place.content.import(&source, LIMITS, false, "user").expect_err("a link");
    assert!(refused.to_string().contains("`way-out` is a link"), "{refused}");
    std::fs::remove_file(source.join("deep/way-out")).expect("removed");
    let few = Limits { entries: 3, ..LIMITS };
    assert!(matches!(place.content.import(&source, few, false, "user"), Err(ContentError::Refused(_))));
    let small = Limits { bytes: 1_000, ..LIMITS };
    assert!(matches!(place.content.import(&source, small, false, "user"), Err(ContentError::Refused(_))));
}

fn sent(place: &Place, wants: &[Cid]) -> Vec<u8> {
    let mut stream = Vec::new();
    place.content.send(wants, &mut stream).expect("sent");
    stream
}

#[test]
fn a_transfer_that_breaks_goes_on_where_it_was() {
    let (from, to) = (place(), place());
    let source = folder(from.dir.path());
    let root = from.content.import(&source, LIMITS, false, "user").expect("imported").root;
    let stream = sent(&from, &[root]);
    for cut in [0, 10, 300, stream.len() / 3, stream.len() / 2, stream.len() - DAG_HEADER_BYTES - 1] {
        let to = place();
        let broken = to.content.receive(&[root], u64::MAX, &mut Cursor::new(&stream[..cut]));
        assert!(matches!(broken, Err(TransferError::Stream(_))), "cut at {cut}: {broken:?}");
        let lacking = to.content.lacking(&root, 1000).expect("a list");
        let rest = sent(&from, &lacking);
        assert!(rest.len() <= stream.len() + DAG_HEADER_BYTES, "cut at {cut}");
        to.content.receive(&lacking, u64::MAX, &mut Cursor::new(rest)).expect("the rest");
        assert_eq!(to.content.lacking(&root, 1).expect("a list"), [], "cut at {cut}");
        let target = to.dir.path().join("out");
        to.content.export(&root, &target).expect("exported");
        assert_eq!(tree(&target), tree(&source), "cut at {cut}");
    }
    to.content.receive(&[root], u64::MAX, &mut Cursor::new(&stream)).expect("the whole");
    to.content.pin(&root, "user").expect("whole");
    let mount = to.content.mount(&root).expect("mounted");
    assert_eq!(tree(mount.path()), tree(&source));
}

#[test]
fn a_peer_that_sends_something_else_is_found_out() {
    let from = place();
    let source = folder(from.dir.path());
    let root = from.content.import(&source, LIMITS, false, "user").expect("imported").root;
    let stream = sent(&from, &[root]);
    let receive = |stream: &[u8], max: u64| place().content.receive(&[root], max, &mut Cursor::new(stream));
    let mut tampered = stream.clone();
    tampered[stream.len() / 2] ^= 1;
    assert!(matches!(receive(&tampered, u64::MAX), Err(TransferError::Wrong(_))));
    assert!(matches!(receive(&stream, 1_000_000), Err(TransferError::TooMuch(1_000_000))));
    let other = Cid::of(bacnode_protocol::content::Codec::Raw, b"other");
    let other = place().content.receive(&[other], u64::MAX, &mut Cursor::new(&stream));
    assert!(matches!(other, Err(TransferError::Wrong(_))), "{other:?}");
    let nothing = place();
    let missing = sent(&nothing, &[root]);
    assert!(matches!(receive(&missing, u64::MAX), Err(TransferError::Missing(_))));
}

#[test]
fn the_sweep_takes_what_nobody_keeps_and_nothing_else() {
    let place = place();
    let source = folder(place.dir.path());
    let kept = place.content.import(&source, LIMITS, false, "user").expect("imported");
    let loose = place.content.import_bytes(&bytes(2_000_000, 3), "user").expect("imported");
    let shared = place.content.import_bytes(&bytes(3_500_000, 7), "user").expect("imported");
    for root in [loose.root, shared.root] {
        place.content.unpin(&root, "user").expect("unpinned");
    }
    let freed = place.content.collect(&HashSet::new(), None).expect("swept");
    assert!((2_000_000..2_100_000).contains(&freed), "{freed}");
    assert!(!place.content.has(&loose.root).expect("a look"));
    let target = place.dir.path().join("out");
    place.content.export(&kept.root, &target).expect("exported");
    assert_eq!(tree(&target), tree(&source));
    assert_eq!(place.content.pins().expect("pins").len(), 1);
}

#[test]
fn a_full_quota_is_an_error_and_no_loss() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::open(dir.path()).expect("a store");
    let content = Content::open(store, dir.path(), 1 << 20).expect("content");
    let file = dir.path().join("large");
    std::fs::write(&file, bytes(2 << 20, 1)).expect("a file");
    assert!(matches!(content.import(&file, LIMITS, false, "user"), Err(ContentError::Full { .. })));
    let small = content.import_bytes(b"small", "user").expect("room");
    assert_eq!(content.read(&small.root).expect("held"), b"small");
}

#[test]
fn a_folder_that_names_itself_a_million_times_is_measured_at_once() {
    use bacnode_protocol::content::dag_pb::{Link, Node};
    let place = place();
    let mut below = Cid::of(bacnode_protocol::content::Codec::Raw, b"x");
    let mut blocks = vec![(below, b"x".to_vec())];
    for _ in 0..15 {
        let link = |i: u32| Link { cid: below, name: format!("{i:02}"), tsize: 1 };
        let block = Node { links: (0..16).map(link).collect(), data: vec![8, 1] }.encode();
        below = Cid::of(bacnode_protocol::content::Codec::DagPb, &block);
        blocks.push((below, block));
    }
    let inline = |(cid, block): &(Cid, Vec<u8>)| bacnode_protocol::wire::market::InlineBlock {
        cid: *cid,
        bytes: bacnode_protocol::wire::bounded::BytesMax::new(block.clone()).expect("small"),
    };
    let blocks: Vec<_> = blocks.iter().map(inline).collect();
    assert!(place.content.hold_blocks(&below, &blocks, "job").expect("held"));
    assert_eq!(place.content.size(&below).expect("a size"), 16u64.pow(15));
}

#[test]
fn a_damaged_block_is_given_up_and_comes_again() {
    let (whole, damaged) = (place(), place());
    let source = folder(whole.dir.path());
    let root = whole.content.import(&source, LIMITS, false, "user").expect("imported").root;
    damaged.content.import(&source, LIMITS, false, "user").expect("imported");
    // A bit rots in the middle of the largest file.
    let files = std::fs::read_dir(damaged.dir.path().join("content/files")).expect("files").flatten();
    let largest = files.max_by_key(|file| file.metadata().map_or(0, |meta| meta.len())).expect("a file").path();
    let mut bytes = std::fs::read(&largest).expect("read");
    bytes[1_500_000] ^= 1;
    std::fs::write(&largest, bytes).expect("written");
    assert!(matches!(damaged.content.mount(&root), Err(ContentError::Damaged(_))));
    let lacking = damaged.content.lacking(&root, 10).expect("a look");
    assert_eq!(lacking.len(), 1);
    let received = damaged.content.receive(&lacking, u64::MAX, &mut Cursor::new(sent(&whole, &lacking)));
    assert_eq!(received.expect("received"), 1 << 20);
    let mount = damaged.content.mount(&root).expect("mounted");
    assert_eq!(tree(mount.path()), tree(&source));
}

#[test]
fn what_is_added_again_takes_no_room_again() {
    let place = place();
    let source = place.dir.path().join("source");
    std::fs::create_dir(&source).expect("a folder");
    std::fs::write(source.join("one.bin"), bytes(2_500_000, 3)).expect("a file");
    std::fs::copy(source.join("one.bin"), source.join("two.bin")).expect("a file");
    let files = || std::fs::read_dir(place.dir.path().join("content/files")).expect("files").flatten();
    let root = place.content.import(&source, LIMITS, false, "user").expect("imported").root;
    for reason in ["again", "and-again"] {
        assert_eq!(place.content.import(&source, LIMITS, false, reason).expect("imported").root, root);
        assert_eq!(files().count(), 1);
    }
    // What rots is found, and comes back when it is added once more.
    let kept = files().next().expect("a file").path();
    let mut rotten = std::fs::read(&kept).expect("read");
    rotten[1_500_000] ^= 1;
    std::fs::write(&kept, rotten).expect("written");
    assert!(matches!(place.content.mount(&root), Err(ContentError::Damaged(_))));
    place.content.import(&source, LIMITS, false, "healed").expect("imported");
    assert_eq!(tree(place.content.mount(&root).expect("mounted").path()), tree(&source));
}

#[test]
fn what_is_still_needed_outlives_a_full_quota() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::open(dir.path()).expect("a store");
    let content = Content::open(store, dir.path(), 4 << 20).expect("content");
    let put = |seed, reason: &str| content.import_bytes(&bytes(980_000, seed), reason).expect("imported").root;
    let open = put(1, "j-open/e-1");
    let ended = put(3, "j-ended/e-2");
    let (mounted, idle) = (put(5, "input"), put(7, "input"));
    let _mount = content.mount(&mounted).expect("mounted");
    let coming = content.begin(&Cid::of(bacnode_protocol::content::Codec::Raw, b"x"), "input").expect("begun");
    content.collect(&HashSet::from(["j-open".to_owned()]), None).expect("swept");
    let has = |root: &Cid| content.has(root).expect("a look");
    assert_eq!([has(&open), has(&ended), has(&mounted), has(&idle)], [true, false, true, true]);
    assert_eq!(content.pins().expect("pins").len(), 4);
    drop(coming);
    assert_eq!(content.pins().expect("pins").len(), 3, "what did not come is not kept");
}

#[test]
fn what_does_not_leave_the_node_is_not_sent_and_no_dag_reaches_into_it() {
    let place = place();
    let (open, private) = (&place.content, place.content.private());
    let source = folder(place.dir.path());
    let kept = private.import(&source, LIMITS, false, "user").expect("imported");
    let leaf = private.resolve(&kept.root, "small.txt").expect("the file");
    assert!(private.holds(&kept.root).expect("read") && !open.holds(&kept.root).expect("read"));
    for cid in [kept.root, leaf] {
        let mut sent = Vec::new();
        open.send(&[cid], &mut sent).expect("sent");
        assert!(matches!(open.receive(&[cid], 1 << 30, &mut Cursor::new(sent)), Err(TransferError::Missing(_))));
        assert!(open.mount(&cid).is_err());
    }
    // A folder of somebody's making that names the file does not bring it along.
    let other = place.dir.path().join("other");
    std::fs::create_dir(&other).expect("a folder");
    std::fs::write(other.join("stolen"), b"small").expect("a file");
    let theirs = self::place();
    let graft = theirs.content.import(&other, LIMITS, false, "user").expect("imported");
    let mut sent = Vec::new();
    theirs.content.send(&[graft.root], &mut sent).expect("sent");
    // Of what they send only the folder itself arrives.
    let folder_only = &sent[..sent.len() / 2];
    assert!(open.receive(&[graft.root], 1 << 30, &mut Cursor::new(folder_only)).is_err());
    assert!(!open.holds(&graft.root).expect("read"));
    // The operator's word takes it over.
    open.adopt(private, &kept.root, "user").expect("adopted");
    assert!(open.holds(&kept.root).expect("read"));
    let target = place.dir.path().join("out");
    open.export(&kept.root, &target).expect("exported");
    assert_eq!(tree(&target), tree(&source));
    assert!(open.used_in_all() >= private.used() * 2);
}
