//! Objects of S3-compatible stores, as tasks name them.

use regex::{Regex, RegexBuilder};

use super::bounded::TextMax;
use super::codec::{Decode, Encode};
use crate::limits::URL_BYTES_MAX;

/// Bytes that a compiled pattern may take: a peer's pattern must not exhaust memory.
const PATTERN_BYTES_MAX: usize = 64 << 10;
/// FNV-1a, 32 bits (RFC 9923): Bacalhau's way from a partition key to a partition.
const FNV_BASIS: u32 = 0x811c_9dc5;
const FNV_PRIME: u32 = 0x0100_0193;

/// Where objects lie.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Place {
    /// The bucket.
    pub bucket: TextMax<63>,
    /// A key; a prefix of keys if it is empty or ends in `/` or `*`.
    pub key: TextMax<1024>,
    /// The region; the node's own choice if empty.
    pub region: TextMax<64>,
    /// The store's URL; the node's own choice if empty.
    pub endpoint: TextMax<URL_BYTES_MAX>,
}

impl Place {
    /// Whether it can become part of a URL without meaning something else there.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let plain = |text: &str, more: &[u8]| text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b));
        let key = !self.key.starts_with('/') && !self.key.contains(|c: char| c.is_control());
        (3..=63).contains(&self.bucket.len())
            && plain(&self.bucket, b".-_")
            && !self.bucket.starts_with('.')
            && plain(&self.region, b"-")
            && plain(&self.endpoint, b".-_~:/[]")
            && key
            && self.key.split('/').all(|part| part != ".." && part != ".")
    }

    /// What the keys of several objects begin with; none if it is one object.
    #[must_use]
    pub fn prefix(&self) -> Option<&str> {
        let several = self.key.is_empty() || self.key.ends_with(['/', '*']);
        several.then(|| self.key.trim_end_matches('*'))
    }

    /// The part of `key` that the task sees: what follows the last `/` of the place's own key.
    #[must_use]
    pub fn name_of<'a>(&self, key: &'a str) -> &'a str {
        let prefix = self.key.trim_end_matches('*');
        let folder = prefix.rfind('/').map_or(0, |at| at + 1);
        key.get(folder..).filter(|_| key.starts_with(&prefix[..folder])).unwrap_or(key)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "s3://{}/{}", &*self.bucket, &*self.key)
    }
}

/// How objects are dealt out to a job's slots: those with equal partition keys go to the same one. Append only.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub enum Partition {
    /// Every slot sees all.
    #[default]
    None,
    /// By the object's key.
    Object,
    /// By what this pattern's groups match in the key, or all of it if there are none.
    Regex(TextMax<512>),
    /// By these bytes of the key, the second excluded.
    Substring(u32, u32),
    /// By the time of the last change, in this layout of Go's (`2006-01-02`).
    Date(TextMax<64>),
}

/// Objects that a task reads.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Objects {
    /// Where they lie.
    pub place: Place,
    /// Only keys that this matches; all if empty.
    pub filter: TextMax<512>,
    /// The version of the one object; the latest if empty.
    pub version: TextMax<1024>,
    /// What the bytes of the one object must hash to.
    pub sha256: Option<[u8; 32]>,
    /// How they are dealt out.
    pub partition: Partition,
}

/// How a result is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Encoding {
    /// One packed archive (`.tar.gz`).
    Gzip,
    /// Each file as an object.
    Plain,
}

/// Where a result goes beside the network's content. Append only.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub enum Publisher {
    /// Nowhere: the network has it.
    #[default]
    Content,
    /// To a store; `{jobID}`, `{executionID}`, `{nodeID}`, `{date}` and `{time}` in its key are filled in.
    S3(Place, Encoding),
    /// To a web server of the compute node's own.
    Local,
}

/// What says which objects go to which slot, ready for use.
#[derive(Debug)]
pub struct Selector {
    filter: Option<Regex>,
    by: By,
}

#[derive(Debug)]
enum By {
    None,
    Object,
    Regex(Regex),
    Substring(usize, usize),
    Date(String),
}

/// A pattern of bounded cost.
///
/// # Errors
/// If it is none, in words.
pub fn pattern(text: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX).build();
    built.map_err(|error| error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned())
}

impl Selector {
    /// What `objects` says.
    ///
    /// # Errors
    /// If one of its patterns is none.
    pub fn new(objects: &Objects) -> Result<Self, String> {
        let filter = Some(&*objects.filter).filter(|text| !text.is_empty()).map(pattern).transpose()?;
        let by = match &objects.partition {
            Partition::None => By::None,
            Partition::Object => By::Object,
            Partition::Regex(text) => By::Regex(pattern(text)?),
            Partition::Substring(from, to) => By::Substring(*from as usize, *to as usize),
            Partition::Date(layout) => By::Date(strftime(layout)),
        };
        Ok(Self { filter, by })
    }

    /// Whether the object with this key, of which the task sees `name`, is for `slot` of `slots`. `date` writes the time of
    /// its last change in a layout of `strftime`.
    pub fn is_for(&self, slot: u32, slots: u32, key: &str, name: &str, date: impl FnOnce(&str) -> String) -> bool {
        if self.filter.as_ref().is_some_and(|filter| !filter.is_match(key)) {
            return false;
        }
        let partition = |key: Option<&[u8]>| key.map_or(0, |key| fnv(key) % slots.max(1));
        slot == match &self.by {
            By::None => slot,
            By::Object => partition(Some(key.as_bytes())),
            By::Regex(regex) => partition(groups(regex, name).as_deref()),
            By::Substring(from, to) => partition(name.as_bytes().get(*from..*to)),
            By::Date(layout) => partition(Some(date(layout).as_bytes())),
        }
    }
}

/// What the groups of `regex` match in `text`, or all that it matches if it has none.
fn groups(regex: &Regex, text: &str) -> Option<Vec<u8>> {
    let found = regex.captures(text)?;
    if found.len() == 1 {
        return found.get(0).map(|all| all.as_str().into());
    }
    let groups: Vec<&str> = found.iter().skip(1).map(|group| group.map_or("", |group| group.as_str())).collect();
    Some(groups.join("\0").into_bytes())
}

fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(FNV_BASIS, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(FNV_PRIME))
}

/// A layout of Go's in the words of `strftime`.
fn strftime(layout: &str) -> String {
    let words = [("2006", "%Y"), ("01", "%m"), ("02", "%d"), ("15", "%H"), ("04", "%M"), ("05", "%S")];
    words.iter().fold(layout.replace('%', "%%"), |text, (go, ours)| text.replace(go, ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(key: &str, filter: &str, partition: Partition) -> Objects {
        let place = Place { key: TextMax::truncated(key), ..Place::default() };
        let (filter, version) = (TextMax::truncated(filter), TextMax::default());
        Objects { place, filter, version, sha256: None, partition }
    }

    #[test]
    fn the_task_sees_what_follows_the_last_folder() {
        for (place, key, name) in [
            ("logs/2024/", "logs/2024/a/b.txt", "a/b.txt"),
            ("logs/2024/*", "logs/2024/b.txt", "b.txt"),
            ("logs/20*", "logs/2024/b.txt", "2024/b.txt"),
            ("logs/b.txt", "logs/b.txt", "b.txt"),
            ("b*", "b.txt", "b.txt"),
            ("", "x/y", "x/y"),
        ] {
            let place = objects(place, "", Partition::None).place;
            assert_eq!(place.name_of(key), name, "{place}");
        }
    }

    #[test]
    fn every_object_goes_to_exactly_one_slot() {
        let ways = [
            Partition::Object,
            Partition::Regex(TextMax::truncated(r"^(\d{4})-(\d\d)")),
            Partition::Regex(TextMax::truncated(r"\.csv$")),
            Partition::Substring(0, 4),
            Partition::Substring(90, 99),
            Partition::Date(TextMax::truncated("2006-01-02")),
        ];
        for way in ways {
            let selector = Selector::new(&objects("data/", "", way.clone())).expect("patterns");
            for (key, name) in [("data/2024-01-a.csv", "2024-01-a.csv"), ("data/2024-01-b.txt", "2024-01-b.txt")] {
                let date = |layout: &str| layout.to_owned();
                let slots = (0..5).filter(|&slot| selector.is_for(slot, 5, key, name, date)).count();
                assert_eq!(slots, 1, "{way:?} {key}");
            }
        }
    }

    #[test]
    fn equal_partition_keys_stay_together() {
        let by_month = Partition::Regex(TextMax::truncated(r"^(\d{4}-\d\d)"));
        let selector = Selector::new(&objects("", "", by_month)).expect("a pattern");
        let slot = |name: &str| (0..7).find(|&slot| selector.is_for(slot, 7, name, name, |_| String::new()));
        assert_eq!(slot("2024-01-a"), slot("2024-01-b"));
        assert_eq!(slot("without"), Some(0), "what has no key goes to the first");
    }

    #[test]
    fn a_filter_leaves_out_what_it_does_not_match() {
        let selector = Selector::new(&objects("", r"\.csv$", Partition::None)).expect("a pattern");
        assert!(selector.is_for(3, 4, "a.csv", "a.csv", |_| String::new()));
        assert!(!selector.is_for(3, 4, "a.txt", "a.txt", |_| String::new()));
    }

    #[test]
    fn a_pattern_of_great_cost_is_refused() {
        assert!(pattern(r"((a{99}){99}){99}").is_err());
        assert!(pattern("(").is_err());
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv(b"foobar"), 0xbf9c_f968, "RFC 9923, appendix");
    }
}
