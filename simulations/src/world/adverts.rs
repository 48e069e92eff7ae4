//! How nodes come to know of each other: adverts by gossip, and views compared.

use std::collections::BTreeMap;
use std::rc::Rc;

use bacnode_protocol::limits::{ADVERT_PERIOD_MIN, ADVERTS_PER_SECOND};
use bacnode_protocol::requester;
use bacnode_protocol::view::Change;
use bacnode_protocol::wire::advert::{Advert, SignedAdvert};
use bacnode_protocol::wire::bounded::{BytesMax, ListMax, TextMax};
use bacnode_protocol::wire::codec;
use bacnode_protocol::wire::constraint::LabelSketch;
use bacnode_protocol::wire::signed::SignatureBytes;
use bacnode_protocol::wire::task::{Engine, Engines};
use rand::RngExt as _;

use super::{EXCHANGE_EVERY, Event, World};
use crate::plan::{Evil, MILLI, Micros, SECOND};

/// What a node's operator says of it.
pub(super) fn labels(index: usize) -> BTreeMap<String, String> {
    index.is_multiple_of(2).then(|| ("even".to_owned(), "yes".to_owned())).into_iter().collect()
}

impl World<'_> {
    /// Whether two nodes have a connection of their own: in a lean trial only owners have.
    pub(super) fn knows_each_other(&self, a: usize, b: usize) -> bool {
        !self.plan.lean || self.owners.contains(&a) || self.owners.contains(&b)
    }

    /// Its own advert is part of a node's picture from the beginning.
    pub(super) fn announce_self(&mut self, index: usize) {
        let advert = self.make_advert(index);
        let now = self.hosts[index].clock.now(self.now);
        let host = &mut self.hosts[index];
        host.advert = Some(advert.1.clone());
        host.view.take(advert.0.clone(), advert.1.clone(), now);
    }

    pub(super) fn make_advert(&mut self, index: usize) -> Rc<(Advert, SignedAdvert)> {
        let (real, period) = (self.plan.real_signatures, self.advert_period());
        let host = &mut self.hosts[index];
        host.adverts += 1;
        let advert = Advert {
            node: host.id,
            sequence: Advert::numbered(host.disk.epoch, host.adverts),
            issued: host.clock.now(self.now).unix,
            ttl_s: u32::try_from(period * 3 / SECOND).unwrap_or(45),
            wire: (1, if matches!(host.plan.evil, None | Some(Evil::Waver)) { 2 } else { 1 }),
            engines: Engines::of(&[Engine::Wasm]),
            total: host.total,
            load_percent: host.compute.as_ref().map_or(0, |compute| compute.load().percent),
            name: TextMax::truncated(&format!("n{index}")),
            version: TextMax::default(),
            labels: LabelSketch::of(labels(index).iter().map(|(key, value)| (key.as_str(), value.as_str()))),
            addresses: ListMax::default(),
            leaving: false,
        };
        let signed = if real {
            advert.clone().sign(&host.signer)
        } else {
            // Checking each advert at each node is most of the time, and the same every time.
            let bytes = BytesMax::new(codec::encode(&advert)).unwrap_or_default();
            SignedAdvert { bytes, signature: SignatureBytes([0; 64]) }
        };
        Rc::new((advert, signed))
    }

    /// The whole network says at most so much a second.
    pub(super) fn advert_period(&self) -> Micros {
        Advert::period(self.hosts.len(), ADVERT_PERIOD_MIN, ADVERTS_PER_SECOND).0
    }

    pub(super) fn announce(&mut self, index: usize) {
        let period = self.advert_period();
        let jitter = self.rng.random_range(0..period / 10);
        if !self.hosts[index].up {
            return;
        }
        self.push(period - jitter, Event::Announce { host: index });
        let tick = self.hosts[index].clock.tick(self.now);
        self.hosts[index].view.expire(tick);
        self.announce_self(index);
        let advert = self.make_advert(index);
        for other in 0..self.hosts.len() {
            let hears = !self.plan.lean || self.owners.contains(&other);
            if other == index || !hears || !self.hosts[other].up || !self.links.passes(index, other) {
                continue;
            }
            let (arrivals, count) = self.links.arrivals(index, other, &mut self.rng);
            // Gossip goes by several ways: one loss is not the end of it.
            let after = if count == 0 { self.links.distance(index, other) * 4 + 200 * MILLI } else { arrivals[0] };
            self.stats.advert_bytes += 300;
            self.push(after, Event::Heard { host: other, advert: Rc::clone(&advert) });
        }
    }

    pub(super) fn heard_advert(&mut self, index: usize, advert: &(Advert, SignedAdvert)) {
        let host = &mut self.hosts[index];
        let now = host.clock.now(self.now);
        if !host.up || !advert.0.is_current(now.unix) {
            return;
        }
        let change = if self.plan.real_signatures {
            host.view.offer(advert.1.clone(), now).map(|(_, change)| change)
        } else {
            Ok(host.view.take(advert.0.clone(), advert.1.clone(), now))
        };
        if change == Ok(Change::Joined) {
            self.requester_input(index, requester::Input::ViewGrew);
        }
    }

    /// Two nodes compare what they know, by the real comparison.
    pub(super) fn exchange(&mut self, index: usize) {
        self.push(EXCHANGE_EVERY, Event::Exchange { host: index });
        if !self.hosts[index].up || self.plan.lean {
            return;
        }
        let Some(partner) = self.hosts[index].view.random_connected(&mut self.rng) else { return };
        let partner = self.by_id[&partner];
        let reached = self.hosts[partner].up && self.hosts[partner].frozen_until <= self.now;
        if !reached || !self.links.connects(index, partner) {
            return;
        }
        for (asks, answers) in [(index, partner), (partner, index)] {
            let tick = |host: usize| self.hosts[host].clock.tick(self.now);
            let known = self.hosts[asks].view.digest(tick(asks), &mut self.rng);
            let (adverts, _) = self.hosts[answers].view.compare(&known, tick(answers), &mut self.rng);
            self.stats.view_bytes += known.len() as u64 * 40 + adverts.len() as u64 * 300;
            let nodes: Vec<Advert> = adverts
                .iter()
                .filter_map(|signed| codec::decode::<Advert>(&signed.bytes, signed.bytes.len()).ok())
                .collect();
            for (advert, signed) in nodes.into_iter().zip(adverts) {
                self.heard_advert(asks, &(advert, signed));
            }
        }
    }

    /// A node that is up, and one that it should know and does not.
    pub(super) fn differing(&self) -> Option<(usize, usize)> {
        if self.plan.lean {
            return None;
        }
        let up = || self.hosts.iter().enumerate().filter(|(_, host)| host.up);
        up().find_map(|(index, host)| {
            let lacks = up().find(|(_, other)| !other.behind && host.view.get(&other.id).is_none());
            lacks.map(|(lacks, _)| (index, lacks))
        })
    }
}
