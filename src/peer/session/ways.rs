//! Decides: a session's paths: which one is in use, which ones are kept, and how everything goes from one to another.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::ProtocolError;
use super::path::{Can, Hello, Path, PathId};
use super::record::{Kind, Record};
use super::state::{Event, Multipath, Role, State};

/// Paths beside the one in use that are kept to go back to.
const SPARE: usize = 2;

/// Paths that an answerer keeps: a caller keeps fewer, and opens few at a time.
const KEPT: usize = 8;

/// A better path that was in doubt is gone back to when it has been well for this long.
const STEADY: Duration = Duration::from_secs(2);

/// A new path that has not caught up with the one before in this time is slower than that. It takes everything that follows all the
/// same.
const HANDOVER: Duration = Duration::from_secs(2);

/// Buffers are kept this long after the last time that they were wanted, at least.
const REST: Duration = Duration::from_secs(1);

/// A timer that comes this much late says that this machine slept, or that this program was not let run.
const STILL: Duration = Duration::from_secs(2);

impl State {
    /// An authenticated path to the other end; `standing` says how good it is, smaller is better. The caller's wish is to use it
    /// from now on; the first one is used at once, a later one when the other end has greeted.
    pub(crate) fn attach(&mut self, id: PathId, standing: u8, now: Instant) {
        if self.paths.len() >= KEPT {
            let oldest =
                self.paths.iter().filter(|(id, _)| self.active != Some(**id)).min_by_key(|(_, path)| path.epoch);
            if let Some(oldest) = oldest.map(|(id, _)| *id) {
                self.give_up(oldest);
                self.events.push_back(Event::Over(oldest));
            }
        }
        self.paths.insert(id, Path::new(standing, now));
        if self.role == Role::Caller {
            self.choose(id, now);
            if self.epoch == 1 {
                self.active = Some(id);
                self.events.push_back(Event::Active(id));
            }
        }
    }

    /// The caller's wish, from now on.
    fn choose(&mut self, id: PathId, now: Instant) {
        let Some(mut path) = self.paths.remove(&id) else { return };
        self.epoch += 1;
        path.epoch = self.epoch;
        path.awaiting = true;
        self.greet(&mut path, 0, now);
        self.paths.insert(id, path);
    }

    fn can(&self) -> Can {
        Can(Can::TELL | if self.multipath == Multipath::Throughput { Can::SPREAD } else { 0 })
    }

    fn greet(&self, path: &mut Path, from: u64, now: Instant) {
        let expected = self.incoming.expected();
        // What the other end still has to say from an earlier time on this path comes before its greeting.
        if !path.greeted || self.role == Role::Answerer {
            path.number = expected;
        }
        path.out = None;
        path.say(Hello { session: self.session, epoch: path.epoch, expected, from, can: self.can() }.to_record());
        path.ask(now, self.since);
    }

    /// The path is gone.
    pub(crate) fn detach(&mut self, id: PathId, now: Instant) {
        self.give_up(id);
        if self.active == Some(id) {
            self.active = None;
        }
        self.reconsider(now);
    }

    /// What was on its way there goes by the others.
    fn give_up(&mut self, id: PathId) {
        if let Some(mut path) = self.paths.remove(&id) {
            self.send_again(path.take_lost());
        }
        self.end_handover_by(id);
    }

    /// What went on a path that can not be counted on goes by the others, where several are used alike. Where one is, the next one
    /// begins with whatever the other end does not have.
    fn send_again(&mut self, lost: impl Iterator<Item = u64>) {
        if self.spreads() || !self.greeted {
            self.outgoing.handle_lost(lost);
        }
    }

    /// This path goes on no more, if it was the one before.
    fn end_handover_by(&mut self, id: PathId) {
        if self.before.is_some_and(|(before, _)| before == id) {
            self.before = None;
            self.outgoing.end_handover();
        }
    }

    pub(crate) fn active(&self) -> Option<PathId> {
        self.active
    }

    /// True when this path says nothing any more.
    pub(crate) fn is_doubted(&self, id: PathId) -> bool {
        self.paths.get(&id).is_some_and(|path| path.pulse.is_doubted())
    }

    pub(crate) fn rtt(&self, id: PathId) -> Option<Duration> {
        self.paths.get(&id)?.pulse.rtt()
    }

    pub(super) fn handle_hello(&mut self, id: PathId, hello: Hello, now: Instant) -> Result<(), ProtocolError> {
        let Some(mut path) = self.paths.remove(&id) else { return Ok(()) };
        let due = match self.role {
            Role::Caller => path.awaiting && hello.epoch == path.epoch,
            Role::Answerer => !path.greeted || hello.epoch > path.epoch,
        };
        if hello.session != self.session || !due {
            return Err(ProtocolError::Greeting);
        }
        let known = std::mem::replace(&mut path.greeted, true);
        path.awaiting = false;
        self.greeted = true;
        self.theirs = hello.can;
        if !self.spreads() {
            drop(path.take_lost());
        }
        let wanted = match self.role {
            // The one in use stays so until a later one is greeted, be that the last or not.
            Role::Caller => self
                .active
                .filter(|active| *active != id)
                .and_then(|active| self.paths.get(&active))
                .is_none_or(|p| p.epoch < path.epoch),
            Role::Answerer => hello.epoch > self.epoch,
        };
        if self.role == Role::Answerer {
            path.epoch = hello.epoch;
            self.epoch = self.epoch.max(hello.epoch);
            self.greet(&mut path, self.outgoing.resumes_from(hello.expected), now);
        }
        if self.role == Role::Caller || !wanted && !known {
            path.number = hello.from;
        }
        self.paths.insert(id, path);
        if wanted {
            return self.switch(id, hello.expected, now);
        }
        // A later one was greeted sooner: this one is kept to go back to.
        self.spare_few();
        Ok(())
    }

    /// Everything goes over this path from now on, from what the other end expects. The one before is kept to go back to; where it
    /// is well, it goes on until this one, which is slow in the beginning, has caught up with it: so there is no silence between.
    fn switch(&mut self, id: PathId, expected: u64, now: Instant) -> Result<(), ProtocolError> {
        if self.active == Some(id) {
            // The first path, used before it was greeted: all of it is on the way already.
            return self.handle_ack(expected);
        }
        let is_well = |paths: &BTreeMap<PathId, Path>, id| paths.get(&id).is_some_and(Path::is_usable);
        let latest = self.active.filter(|active| is_well(&self.paths, *active));
        // In the midst of a handover the one before that is the farthest.
        let going_on = self.before.filter(|_| self.outgoing.is_handing_over());
        let farthest = going_on.map(|(before, _)| before).filter(|before| is_well(&self.paths, *before));
        self.active = Some(id);
        self.events.push_back(Event::Active(id));
        self.before = farthest.or(latest).filter(|before| *before != id).map(|before| (before, now + HANDOVER));
        if farthest.is_none() || self.before.is_none() {
            self.outgoing.end_handover();
        }
        self.spare_few();
        self.incoming.resume();
        self.incoming.count(now);
        match self.before {
            // Each path still carries what was given to it.
            _ if self.spreads() => self.handle_ack(expected),
            Some(_) if self.theirs.tell() => self.outgoing.hand_over(expected),
            _ => self.outgoing.resume(expected),
        }
    }

    pub(super) fn handle_ack(&mut self, expected: u64) -> Result<(), ProtocolError> {
        if self.theirs.tell() { self.outgoing.handle_ack_of_any(expected) } else { self.outgoing.handle_ack(expected) }
    }

    /// Gives up what is one too many to keep: paths that are in doubt first, then those that were in use longest ago; the last
    /// resort is kept.
    fn spare_few(&mut self) {
        let spare = |(id, path): &(&PathId, &Path)| path.greeted && !path.awaiting && Some(**id) != self.active;
        let spares: Vec<(PathId, (bool, u8, u32))> = self
            .paths
            .iter()
            .filter(spare)
            .map(|(id, path)| (*id, (path.is_usable(), path.standing, path.epoch)))
            .collect();
        if self.role != Role::Caller || spares.len() <= SPARE {
            return;
        }
        if let Some((id, _)) = spares.into_iter().min_by_key(|(_, worth)| *worth) {
            self.give_up(id);
            self.events.push_back(Event::Over(id));
        }
    }

    /// Chooses another path where the one in use, or the one that was chosen last, says nothing any more, and goes back to a
    /// better one that is well again. The answerer, which can not choose, says that it doubts.
    pub(super) fn reconsider(&mut self, now: Instant) {
        if !self.greeted {
            return;
        }
        let last = match self.role {
            Role::Caller => self.paths.iter().max_by_key(|(_, path)| path.epoch).map(|(id, _)| *id),
            Role::Answerer => self.active,
        };
        let last = last.filter(|id| self.active == Some(*id) || self.paths.get(id).is_some_and(|path| path.awaiting));
        let at = last.and_then(|id| self.paths.get(&id));
        let (heard, well, standing) = at
            .map_or((None, false, u8::MAX), |path| (Some(path.pulse.heard()), !path.pulse.is_doubted(), path.standing));
        let better = |path: &Path| match well {
            true => path.standing < standing && now >= path.pulse.steady() + STEADY,
            false => heard.is_none_or(|heard| path.pulse.heard() > heard),
        };
        let others = self.paths.iter().filter(|(id, path)| Some(**id) != last && path.is_usable() && better(path));
        let best =
            others.min_by_key(|(_, path)| (path.standing, std::cmp::Reverse(path.pulse.heard()))).map(|(id, _)| *id);
        match (self.role, best) {
            (Role::Caller, Some(id)) => self.choose(id, now),
            (Role::Answerer, Some(id)) if !well => {
                if let Some(path) = self.paths.get_mut(&id) {
                    path.say(Record::new(Kind::Doubt, 0, Bytes::new()));
                }
            }
            _ => {}
        }
    }

    /// The other end does not hear us on the path in use, and hears us on this one.
    pub(super) fn handle_doubt(&mut self, id: PathId, now: Instant) {
        let chosen = self.paths.values().any(|path| path.awaiting);
        if chosen || self.active == Some(id) {
            return;
        }
        if let Some(path) = self.active.and_then(|active| self.paths.get_mut(&active)) {
            path.pulse.handle_blamed(now);
        }
        self.choose(id, now);
    }

    /// Something came on a path, which is no whole record yet.
    pub(crate) fn handle_heard(&mut self, id: PathId, now: Instant) {
        // A greeting is too short to come in parts for long.
        if let Some(path) = self.paths.get_mut(&id).filter(|path| path.greeted) {
            path.pulse.handle_heard(now);
        }
    }

    /// The machine's network is another one: every path is asked whether it lives.
    pub(crate) fn handle_change(&mut self, now: Instant) {
        for path in self.paths.values_mut() {
            path.ask(now, self.since);
        }
    }

    /// The other end has said, on its way around all paths, that it is on none of them any more.
    pub(crate) fn handle_left(&mut self, now: Instant) {
        let mut lost = Vec::new();
        for path in self.paths.values_mut() {
            path.ask(now, self.since);
            path.pulse.handle_left();
            lost.extend(path.take_lost());
        }
        self.send_again(lost.into_iter());
        if let Some((before, _)) = self.before {
            self.end_handover_by(before);
        }
    }

    // ---- time

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let handover = self.before.filter(|_| self.outgoing.is_handing_over()).map(|(_, due)| due);
        let ack = self.active.and_then(|_| self.incoming.poll_timeout());
        self.paths.values().map(|path| path.pulse.poll_timeout()).chain(handover).chain(ack).min()
    }

    /// Asks quiet paths, doubts silent ones, gives up dead ones, and has an acknowledgement go alone. `armed` is when this was to be
    /// called.
    pub(crate) fn handle_timeout(&mut self, armed: Instant, now: Instant) {
        self.incoming.handle_timeout(now);
        if now >= self.rested + REST {
            self.rested = now;
            self.buffers.rest();
        }
        let since = self.since;
        if now >= armed + STILL {
            self.paths.values_mut().for_each(|path| path.pulse.handle_still(now));
        }
        let (mut dead, mut doubted, mut silent, mut lost) = (Vec::new(), false, Vec::new(), Vec::new());
        for (id, path) in &mut self.paths {
            if path.pulse.is_dead(now) {
                dead.push(*id);
                continue;
            }
            let begins = path.pulse.handle_doubt(now);
            doubted |= begins && self.active == Some(*id);
            if begins {
                lost.extend(path.take_lost());
                silent.push(*id);
            }
            if path.pulse.wants_asking(now) {
                path.ask(now, since);
                // Whoever is asked in vain is not the only one to be asked.
                doubted |= self.active == Some(*id) && path.pulse.is_doubted();
            }
        }
        self.send_again(lost.into_iter());
        silent.into_iter().for_each(|id| self.end_handover_by(id));
        if self.before.is_some_and(|(_, due)| now >= due) {
            self.outgoing.cut_handover();
        }
        for id in dead {
            self.detach(id, now);
            self.events.push_back(Event::Over(id));
        }
        if doubted {
            self.handle_ailing(now);
        }
        self.reconsider(now);
    }

    /// The path in use says nothing: the others are asked, and one that answers is gone to.
    fn handle_ailing(&mut self, now: Instant) {
        for (id, path) in &mut self.paths {
            if self.active != Some(*id) && !path.pulse.is_doubted() {
                path.ask(now, self.since);
            }
        }
        self.events.push_back(Event::Ailing);
    }
}
