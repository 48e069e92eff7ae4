//! Bad luck strikes, and passes.

use rand::RngExt as _;
use rand::seq::SliceRandom as _;

use bacnode_protocol::{compute, requester};

use super::host::Running;
use super::{Event, World};
use crate::plan::{MILLI, Micros, SECOND, What};

impl World<'_> {
    pub(super) fn fault(&mut self, index: usize) {
        let fault = self.plan.faults[index].what.clone();
        let stages = fault.nodes().iter().map(|node| self.stages(*node)).collect::<Vec<_>>();
        self.stats.struck(fault.name(), &stages);
        let node = fault.nodes().first().copied().unwrap_or(0);
        self.trace.note(self.now, (node, None), "fault", &[], || format!("bad luck: {fault:?}"));
        match fault {
            What::Kill { node, down } => self.crash(node, down, false),
            What::PowerLoss { node, down } => self.crash(node, down, true),
            What::KillAtOutput { node, outputs, down, power } => self.hosts[node].fuse = Some((outputs, down, power)),
            What::Gone { node } => {
                self.gone.insert(node);
                self.crash(node, 0, false);
            }
            What::Wipe { node, down } => {
                self.crash(node, down, true);
                self.hosts[node].disk.wipe();
                self.hosts[node].kept.clear();
                self.books.lose_disk(node, &self.hosts[node].id);
            }
            What::Split { side, lasts } => {
                self.block(&side, true, true);
                self.push(lasts, Event::Over { index });
            }
            What::OneWay { side, lasts } => {
                self.block(&side, false, true);
                self.push(lasts, Event::Over { index });
            }
            What::Clog { node, lasts } => {
                self.clog(node, true);
                self.push(lasts, Event::Over { index });
            }
            What::Flap { node, times, each } => self.flap_down(node, times, each),
            What::SlowDisk { node, factor, lasts } => {
                self.hosts[node].slow = factor;
                self.push(lasts, Event::Over { index });
            }
            What::FullDisk { node, lasts } => self.freeze(node, lasts, false),
            What::ClockJump { node, by } => self.hosts[node].clock.skew += by,
            What::Suspend { node, lasts } => self.freeze(node, lasts, true),
        }
    }

    pub(super) fn fault_over(&mut self, index: usize) {
        match self.plan.faults[index].what.clone() {
            What::Split { side, .. } => self.block(&side, true, false),
            What::OneWay { side, .. } => self.block(&side, false, false),
            What::Clog { node, .. } => self.clog(node, false),
            What::SlowDisk { node, .. } => self.hosts[node].slow = 1,
            _ => {}
        }
    }

    /// The process is gone, and with the power what was not synced.
    pub(super) fn crash(&mut self, index: usize, down: Micros, power: bool) {
        if !self.hosts[index].up {
            return;
        }
        self.trace.note(self.now, (index, None), "crash", &[u8::from(power)], || {
            if power { "loses power".into() } else { "is killed".into() }
        });
        // Containers outlive the process by which they were started, not the machine.
        let outlived = !power && self.rng.random_bool(0.5);
        let lost = |running: &Running| !outlived || running.stopping;
        let runs = self.hosts[index].runs.iter().filter(|(_, running)| lost(running));
        for execution in runs.map(|(execution, _)| *execution).collect::<Vec<_>>() {
            self.end_run(index, &execution);
        }
        let unsynced = self.hosts[index].disk.unsynced();
        let lost = if power { self.rng.random_range(0..=unsynced) } else { 0 };
        let host = &mut self.hosts[index];
        host.up = false;
        host.life += 1;
        host.disk.lose(lost);
        host.requester = None;
        host.compute = None;
        host.guardian = None;
        host.wake_at = None;
        host.frozen_until = 0;
        host.fuse = None;
        host.slow = 1;
        // What an owner held but did not write down is found again only if its blocks were synced with it.
        self.asleep.remove(&index);
        self.stats.lost_steps += lost as u64;
        for other in 0..self.hosts.len() {
            if other != index && self.knows_each_other(index, other) {
                self.links.tell(index, other, false);
                // A killed process closes its connections; a machine without power is only missed.
                let after = if power {
                    self.rng.random_range(2 * SECOND..20 * SECOND)
                } else {
                    self.rng.random_range(0..100 * MILLI)
                };
                self.push(after, Event::LinkDown { a: other, b: index });
            }
        }
        self.push(down, Event::Back { host: index });
    }

    /// Asleep, or waiting for room on the disk.
    fn freeze(&mut self, index: usize, lasts: Micros, asleep: bool) {
        // Over when faults are.
        let lasts = lasts.min(self.plan.safety.saturating_sub(self.now));
        let host = &mut self.hosts[index];
        if !host.up || host.frozen_until > self.now {
            return;
        }
        host.frozen_until = self.now + lasts;
        if asleep {
            self.asleep.insert(index);
        } else {
            let refuse = compute::Input::Accepting(Err("its disk is almost full".into()));
            self.compute_input(index, refuse);
        }
        self.push(lasts, Event::Thaw { host: index });
    }

    pub(super) fn thaw(&mut self, index: usize) {
        let slept = self.asleep.remove(&index);
        if !self.hosts[index].up {
            return;
        }
        self.hosts[index].frozen_until = 0;
        // Before anything else the time: what has expired meanwhile is stopped.
        self.tick(index);
        self.compute_input(index, compute::Input::Accepting(Ok(())));
        if !slept {
            return;
        }
        let runs: Vec<_> = self.hosts[index].runs.values().map(|running| running.run.clone()).collect();
        for run in runs {
            let Some(running) = self.hosts[index].runs.get_mut(&run.execution) else { continue };
            if running.stopping {
                // It slept through its end, and is being killed now.
                running.excused = true;
            } else {
                self.check_rivals(index, &run);
            }
        }
    }

    fn block(&mut self, side: &[usize], both: bool, on: bool) {
        let count = self.hosts.len();
        for &a in side {
            for b in (0..count).filter(|b| !side.contains(b)) {
                self.links.block(a, b, on);
                if both {
                    self.links.block(b, a, on);
                }
                self.relink(a, b);
            }
        }
    }

    /// Both ends learn of it, sooner or later, if it lasts.
    fn relink(&mut self, a: usize, b: usize) {
        if self.links.connects(a, b) {
            self.connect_later(a, b);
            return;
        }
        for (x, y) in [(a, b), (b, a)] {
            let after = self.rng.random_range(500 * MILLI..25 * SECOND);
            self.push(after, Event::LinkDown { a: x, b: y });
        }
    }

    pub(super) fn connect_later(&mut self, a: usize, b: usize) {
        let after = self.rng.random_range(10 * MILLI..2 * SECOND);
        self.push(after, Event::LinkUp { a, b });
        self.push(after + 1, Event::LinkUp { a: b, b: a });
    }

    pub(super) fn link_up(&mut self, a: usize, b: usize) {
        let up = self.hosts[a].up && self.hosts[b].up && self.links.connects(a, b);
        if !up || self.links.told(a, b) {
            return;
        }
        self.links.tell(a, b, true);
        let (peer, rtt) = (self.hosts[b].id, self.links.distance(a, b) * 2);
        self.hosts[a].view.connected(peer);
        self.hosts[a].view.measured(peer, bacnode_protocol::time::Span(rtt));
        // Whoever connects exchanges views at once.
        if let Some(advert) = self.hosts[b].advert.clone()
            && let Some(known) = self.hosts[b].view.get(&peer).map(|known| known.advert.clone())
        {
            self.heard_advert(a, &(known, advert));
        }
        self.requester_input(a, requester::Input::PeerUp(peer));
        self.compute_input(a, compute::Input::PeerUp(peer));
    }

    pub(super) fn link_down(&mut self, a: usize, b: usize) {
        let still = self.hosts[b].up && self.links.connects(a, b);
        if !self.hosts[a].up || !self.links.told(a, b) {
            return;
        }
        let peer = self.hosts[b].id;
        self.links.tell(a, b, false);
        self.hosts[a].view.disconnected(&peer);
        self.requester_input(a, requester::Input::PeerDown(peer));
        if still {
            // It was only a short break: they find each other again.
            self.connect_later(a, b);
        }
    }

    fn clog(&mut self, index: usize, on: bool) {
        for other in (0..self.hosts.len()).filter(|other| *other != index) {
            self.links.clog(index, other, on);
            self.links.clog(other, index, on);
        }
        if !on {
            self.unclog();
        }
    }

    /// What is held up no longer comes, in any order.
    fn unclog(&mut self) {
        let held = std::mem::take(&mut self.clogged);
        let (still, mut free): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|(from, to, _)| self.links.holds_up(*from, *to));
        self.clogged = still;
        free.shuffle(&mut self.rng);
        for (from, to, message) in free {
            let after = self.rng.random_range(0..100 * MILLI);
            self.push(after, Event::Deliver { from, to, message });
        }
    }

    pub(super) fn flap_down(&mut self, node: usize, left: u32, each: Micros) {
        if self.calm || left == 0 {
            return;
        }
        self.block_all(node, true);
        self.push(each, Event::FlapUp { host: node, left, each });
    }

    pub(super) fn flap_up(&mut self, node: usize, left: u32, each: Micros) {
        self.block_all(node, false);
        let pause = self.rng.random_range(each / 2..each * 2);
        self.push(pause, Event::FlapDown { host: node, left: left - 1, each });
    }

    fn block_all(&mut self, node: usize, on: bool) {
        self.block(&[node], true, on);
        if on {
            // A link that breaks is noticed at once by the one whose it is.
            for other in (0..self.hosts.len()).filter(|other| *other != node) {
                let after = self.rng.random_range(0..200 * MILLI);
                self.push(after, Event::LinkDown { a: node, b: other });
            }
        }
    }

    /// Faults stop: everything that is broken is mended, and stays so.
    pub(super) fn calm(&mut self) {
        self.calm = true;
        self.links.calm = true;
        for index in 0..self.hosts.len() {
            self.hosts[index].slow = 1;
            self.hosts[index].fuse = None;
            self.hosts[index].clock.skew = self.hosts[index].clock.skew.clamp(-2_000, 2_000);
        }
        self.links.mend();
        self.unclog();
        for index in 0..self.hosts.len() {
            if !self.hosts[index].up {
                self.push(0, Event::Back { host: index });
            }
            for other in index + 1..self.hosts.len() {
                if self.knows_each_other(index, other) {
                    self.connect_later(index, other);
                }
            }
        }
    }
}
