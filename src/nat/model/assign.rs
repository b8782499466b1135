//! Decides: which external port a new mapping gets.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::nat::{Delta, Ports, Proto, Rng};

/// Random draws before every port is looked at in turn.
const DRAWS: usize = 64;

/// Hosts whose last mapping is remembered, for [`Delta::Dependent`]; beyond it, memory starts anew.
const MAX_HOSTS: usize = 1 << 16;

/// The state that port assignment needs between mappings.
#[derive(Debug)]
pub(super) struct Assigner {
    delta: Delta,
    ports: Ports,
    rng: Rng,
    last: HashMap<Proto, u16>,
    hosts: HashMap<(Proto, IpAddr), (u16, u16)>,
}

impl Assigner {
    pub(super) fn new(delta: Delta, ports: Ports, seed: u64) -> Self {
        Self { delta, ports, rng: Rng::new(seed), last: HashMap::new(), hosts: HashMap::new() }
    }

    /// A port that `is_free` agrees to, by the rule; `None` when all are taken.
    pub(super) fn assign(
        &mut self,
        proto: Proto,
        internal: (IpAddr, u16),
        is_free: impl Fn(u16) -> bool,
    ) -> Option<u16> {
        let port = self.by_rule(proto, internal, &is_free).or_else(|| self.any(&is_free))?;
        self.last.insert(proto, port);
        if self.hosts.len() >= MAX_HOSTS {
            self.hosts.clear();
        }
        self.hosts.insert((proto, internal.0), (internal.1, port));
        Some(port)
    }

    /// A random free port, outside any rule and not remembered as the last one.
    pub(super) fn any(&mut self, is_free: &impl Fn(u16) -> bool) -> Option<u16> {
        let Ports { low, high } = self.ports;
        for _ in 0..DRAWS {
            let port = self.rng.port(low, high);
            if is_free(port) {
                return Some(port);
            }
        }
        let start = self.rng.port(low, high);
        (0..self.ports.count() as i32).map(|by| self.ports.step(start, by)).find(|port| is_free(*port))
    }

    /// An index below `count`, for choices beside ports.
    pub(super) fn pick(&mut self, count: usize) -> usize {
        self.rng.below(count as u64) as usize
    }

    fn by_rule(&mut self, proto: Proto, (host, local): (IpAddr, u16), is_free: &impl Fn(u16) -> bool) -> Option<u16> {
        match self.delta {
            Delta::Equal => Some(local).filter(|port| self.ports.contains(*port) && is_free(*port)),
            Delta::Preserving(by) => Some(self.ports.step(local, by)).filter(|port| is_free(*port)),
            Delta::Independent(by) => self.next_free(*self.last.get(&proto)?, by, is_free),
            Delta::Dependent(by) => match self.hosts.get(&(proto, host)) {
                Some((last_local, port)) if last_local.checked_add(1) == Some(local) => {
                    self.next_free(*port, by, is_free)
                }
                _ => None,
            },
            Delta::Random => None,
        }
    }

    fn next_free(&self, from: u16, by: i32, is_free: &impl Fn(u16) -> bool) -> Option<u16> {
        let mut port = from;
        for _ in 0..self.ports.count() {
            port = self.ports.step(port, by);
            if is_free(port) {
                return Some(port);
            }
        }
        None
    }
}
