//! A wire of our own between the hosts of a test: packets come late, out of order, too many at once or not at all.
//!
//! Each host's device is a TUN device, whose other end is read here; a packet goes to whoever has its destination, when its
//! time has come. Many kernels have no `netem`; this needs none, and every packet passes a place where it can be counted.

use std::collections::{BinaryHeap, HashMap, HashSet};
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tun_rs::{DeviceBuilder, SyncDevice};

/// Bytes of a packet.
const PACKET_MAX: usize = 2048;
/// Packets on their way; more are lost, as in any router.
const ON_WAY_MAX: usize = 20_000;

/// What a wire does to packets, each way.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Quality {
    /// How long one is on its way.
    pub delay: Duration,
    /// How many of a thousand are lost.
    pub lost: u32,
    /// How many of a thousand come half as late again, and so after those that were sent later.
    pub late: u32,
    /// Bytes a second for each host, if there is an end to them.
    pub rate: Option<u64>,
}

impl Quality {
    /// A wire of so many milliseconds there and back.
    #[must_use]
    pub fn round_trip_ms(ms: u64) -> Self {
        Self { delay: Duration::from_micros(ms * 500), ..Self::default() }
    }
}

/// A packet on its way: when it arrives, its number, where, what.
type OnWay = (Instant, u64, Ipv4Addr, Vec<u8>);

#[derive(Default)]
struct State {
    quality: Quality,
    /// Where each address leads.
    ends: HashMap<Ipv4Addr, Arc<SyncDevice>>,
    /// Those who do not hear from each other.
    cut: HashSet<(Ipv4Addr, Ipv4Addr)>,
    /// When what each host has sent so far has left it.
    sent: HashMap<Ipv4Addr, Instant>,
    /// Earliest first.
    on_way: BinaryHeap<std::cmp::Reverse<OnWay>>,
    count: u64,
    /// Of a simple generator (Knuth's MMIX): all chance in here.
    chance: u64,
    /// Bytes from each host to each other.
    bytes: HashMap<(Ipv4Addr, Ipv4Addr), u64>,
    over: bool,
}

/// The wire. Cheap to clone.
#[derive(Clone)]
pub struct Wire(Arc<(Mutex<State>, Condvar)>);

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wire({:?})", self.lock().quality)
    }
}

impl Wire {
    /// A wire of this quality, with no ends yet.
    #[must_use]
    pub fn new(quality: Quality) -> Self {
        let wire = Self(Arc::new((Mutex::new(State { quality, chance: 1, ..State::default() }), Condvar::new())));
        let carrier = wire.clone();
        std::thread::spawn(move || carrier.carry());
        wire
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an end for a host with this address: the device `name`, which can be moved into the host.
    ///
    /// # Errors
    /// If the system does not let us.
    pub fn end(&self, name: &str, address: Ipv4Addr) -> io::Result<()> {
        let device = Arc::new(DeviceBuilder::new().name(name).build_sync()?);
        self.lock().ends.insert(address, Arc::clone(&device));
        let wire = self.clone();
        std::thread::spawn(move || {
            let mut packet = vec![0; PACKET_MAX];
            // It ends with its host.
            while let Ok(len) = device.recv(&mut packet) {
                wire.take(&packet[..len]);
            }
        });
        Ok(())
    }

    /// Lets another address lead where this one leads.
    pub fn also(&self, address: Ipv4Addr, other: Ipv4Addr) {
        let mut state = self.lock();
        if let Some(device) = state.ends.get(&address).cloned() {
            state.ends.insert(other, device);
        }
    }

    /// From now on it is like this.
    pub fn set(&self, quality: Quality) {
        self.lock().quality = quality;
    }

    /// Nobody of the one side hears from the other.
    pub fn cut(&self, one: &[Ipv4Addr], other: &[Ipv4Addr]) {
        let mut state = self.lock();
        for left in one {
            state.cut.extend(other.iter().flat_map(|right| [(*left, *right), (*right, *left)]));
        }
    }

    /// Everybody hears from everybody again.
    pub fn heal(&self) {
        self.lock().cut.clear();
    }

    /// Bytes that went from one host to another since the start.
    #[must_use]
    pub fn bytes(&self, from: Ipv4Addr, to: Ipv4Addr) -> u64 {
        self.lock().bytes.get(&(from, to)).copied().unwrap_or(0)
    }

    /// Nothing is carried any more.
    pub fn close(&self) {
        let mut state = self.lock();
        state.over = true;
        state.ends.clear();
        self.0.1.notify_all();
    }

    /// Takes a packet from a host; anything but IPv4 is of no interest to anybody here.
    fn take(&self, packet: &[u8]) {
        let Some((from, to)) = ends_of(packet) else { return };
        let mut state = self.lock();
        if !state.ends.contains_key(&to) || state.cut.contains(&(from, to)) || state.on_way.len() >= ON_WAY_MAX {
            return;
        }
        let quality = state.quality;
        if state.draw() < quality.lost {
            return;
        }
        let now = Instant::now();
        let mut leaves = now;
        if let Some(rate) = quality.rate {
            let free = state.sent.entry(from).or_insert(now);
            leaves = (*free).max(now) + Duration::from_secs_f64(packet.len() as f64 / rate as f64);
            *free = leaves;
        }
        let late = state.draw() < quality.late;
        let delay = if late { quality.delay + quality.delay / 2 } else { quality.delay };
        *state.bytes.entry((from, to)).or_default() += packet.len() as u64;
        state.count += 1;
        let number = state.count;
        state.on_way.push(std::cmp::Reverse((leaves + delay, number, to, packet.to_vec())));
        self.0.1.notify_one();
    }

    /// Hands packets over when their time has come.
    fn carry(&self) {
        let mut state = self.lock();
        while !state.over {
            let now = Instant::now();
            match state.on_way.peek().map(|next| next.0.0) {
                Some(at) if at <= now => {
                    let Some(std::cmp::Reverse((_, _, to, packet))) = state.on_way.pop() else { continue };
                    if let Some(device) = state.ends.get(&to).cloned() {
                        drop(state);
                        // A host that is gone hears nothing.
                        let _ = device.send(&packet);
                        state = self.lock();
                    }
                }
                Some(at) => {
                    let waited = self.0.1.wait_timeout(state, at - now);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                None => state = self.0.1.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

impl State {
    /// A number below a thousand.
    fn draw(&mut self) -> u32 {
        self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((self.chance >> 33) % 1_000).unwrap_or(0)
    }
}

/// From where to where an IPv4 packet goes (RFC 791).
fn ends_of(packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let address = |at: usize| packet.get(at..at + 4)?.try_into().ok().map(|bytes: [u8; 4]| Ipv4Addr::from(bytes));
    (packet.first()? >> 4 == 4).then(|| Some((address(12)?, address(16)?)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_where_they_stand() {
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        packet[12..16].copy_from_slice(&[203, 0, 113, 1]);
        packet[16..20].copy_from_slice(&[198, 51, 100, 2]);
        assert_eq!(ends_of(&packet), Some((Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(198, 51, 100, 2))));
        packet[0] = 0x60;
        assert_eq!(ends_of(&packet), None);
        assert_eq!(ends_of(&packet[..7]), None);
    }

    #[test]
    fn a_thousandth_is_a_thousandth() {
        let mut state = State { chance: 7, ..State::default() };
        let lost = (0..100_000).filter(|_| state.draw() < 50).count();
        assert!((4_800..5_200).contains(&lost), "{lost} of 100,000");
    }
}
