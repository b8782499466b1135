//! The core against a server of a few lines, in virtual time.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::core::{Core, Event, Settings};
use super::frame::{Cut, channel_data, datagram};
use super::message::{
    self, CHANNEL_BIND, CREATE_PERMISSION, DATA, REFRESH, SEND, XOR_PEER_ADDRESS, XOR_RELAYED_ADDRESS,
};
use super::{Lost, Refused};
use crate::net::Family;
use crate::stun::{Class, Credentials, Key, Message, PasswordAlgorithm, Timing, Writer, kind};

const RELAYED: &str = "198.51.100.1:50000";
const PEER: &str = "203.0.113.5:4000";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    addr(text).ip()
}

/// A client and its server, and a clock that both go by.
struct World {
    core: Core,
    now: Instant,
    begun: Instant,
    key: Key,
    nonce: &'static str,
    lifetime: u32,
    /// What the server says no to, by method.
    refuses: Vec<(u16, u16)>,
    silent: bool,
    asked: Vec<(u64, u16)>,
}

impl World {
    fn new(stream: bool) -> Self {
        let now = Instant::now();
        let settings = Settings {
            credentials: Credentials::long_term("ann", "hush"),
            family: Family::V4,
            stream,
            tcp: false,
            lifetime: Duration::from_secs(600),
            timing: Timing::default(),
            seed: [7; 32],
        };
        let key = Key::long_term("ann", "here", "hush", PasswordAlgorithm::Md5).unwrap();
        Self {
            core: Core::new(settings, now),
            now,
            begun: now,
            key,
            nonce: "first",
            lifetime: 600,
            refuses: Vec::new(),
            silent: false,
            asked: Vec::new(),
        }
    }

    fn opened(stream: bool) -> Self {
        let mut world = Self::new(stream);
        let event = Event::Allocated {
            relayed: addr(RELAYED),
            mapped: Some(addr("192.0.2.9:9")),
            lifetime: Duration::from_secs(600),
        };
        assert_eq!(world.turn(), [event]);
        world
    }

    /// With the peer let in.
    fn permitted(stream: bool) -> Self {
        let mut world = Self::opened(stream);
        assert!(world.core.permit(world.now, ip(PEER)));
        assert_eq!(world.turn(), [Event::Permitted(ip(PEER))]);
        world
    }

    /// Everything that is said, until nothing more is.
    fn turn(&mut self) -> Vec<Event> {
        for _ in 0..100 {
            let Some(bytes) = self.core.poll_transmit() else {
                return std::iter::from_fn(|| self.core.poll_event()).collect();
            };
            if let Some(answer) = self.serve(&bytes).filter(|_| !self.silent) {
                assert_eq!(self.core.handle(self.now, Cut::Message(&answer)), None);
            }
        }
        panic!("they talk for ever");
    }

    /// Lets time pass in the steps that the core wants.
    fn pass(&mut self, long: Duration) -> Vec<Event> {
        let (until, mut events) = (self.now + long, self.turn());
        for _ in 0..10_000 {
            match self.core.poll_timeout().filter(|due| *due <= until) {
                None => {
                    self.now = until;
                    return events;
                }
                Some(due) => self.now = self.now.max(due),
            }
            self.core.handle_timeout(self.now);
            events.extend(self.turn());
        }
        panic!("time stands still");
    }

    fn serve(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let request = Message::parse(bytes).unwrap();
        assert_eq!(request.fingerprint(), Some(true).filter(|_| request.class() == Class::Request));
        if request.class() != Class::Request {
            return None;
        }
        let method = request.method();
        self.asked.push(((self.now - self.begun).as_secs(), method));
        let mut out = vec![0; 1024];
        let error = match request.integrity(&self.key) {
            None => Some(401),
            Some(false) => Some(401),
            Some(true) if request.text(kind::NONCE) != Some(self.nonce) => Some(438),
            Some(true) => self.refuses.iter().find(|(refused, _)| *refused == method).map(|(_, code)| *code),
        };
        let class = if error.is_some() { Class::Error } else { Class::Success };
        let mut writer = Writer::new(&mut out, class, method, request.id()).unwrap();
        match error {
            Some(code) => {
                writer.error(code, "no\u{7}").unwrap();
                writer.attribute(kind::REALM, b"here").unwrap().attribute(kind::NONCE, self.nonce.as_bytes()).unwrap();
            }
            None if method == message::ALLOCATE => {
                writer.xor_address(XOR_RELAYED_ADDRESS, addr(RELAYED)).unwrap();
                writer.xor_address(kind::XOR_MAPPED_ADDRESS, addr("192.0.2.9:9")).unwrap();
                writer.attribute(message::LIFETIME, &self.lifetime.to_be_bytes()).unwrap();
            }
            None if method == REFRESH => {
                writer.attribute(message::LIFETIME, &self.lifetime.to_be_bytes()).unwrap();
            }
            None => {}
        }
        let len = writer.integrity(&self.key).unwrap().fingerprint().unwrap().len();
        out.truncate(len);
        Some(out)
    }

    fn indication(&self, from: &str, data: &[u8]) -> Vec<u8> {
        let mut out = vec![0; 128 + data.len()];
        let id = crate::stun::TransactionId::modern([1; 12]);
        let mut writer = Writer::new(&mut out, Class::Indication, message::DATA_INDICATION, id).unwrap();
        writer.xor_address(XOR_PEER_ADDRESS, addr(from)).unwrap().attribute(DATA, data).unwrap();
        let len = writer.len();
        out.truncate(len);
        out
    }

    fn count(&self, method: u16) -> usize {
        self.asked.iter().filter(|(_, asked)| *asked == method).count()
    }
}

#[test]
fn an_allocation_is_proved_after_the_challenge_and_refreshed_a_minute_before_it_ends() {
    let mut world = World::opened(false);
    assert_eq!(world.core.relayed(), Some(addr(RELAYED)));
    assert_eq!(world.pass(Duration::from_secs(3600)), []);
    let refreshed: Vec<u64> = world.asked.iter().filter(|(_, method)| *method == REFRESH).map(|(at, _)| *at).collect();
    assert_eq!(refreshed, [540, 1080, 1620, 2160, 2700, 3240]);
}

#[test]
fn a_short_lifetime_is_refreshed_at_its_half() {
    let mut world = World::new(false);
    world.lifetime = 30;
    world.turn();
    world.pass(Duration::from_secs(31));
    assert_eq!(world.count(REFRESH), 2);
}

#[test]
fn nonces_that_grow_stale_again_and_again_are_taken_up_for_as_long_as_it_lasts() {
    let mut world = World::permitted(false);
    for nonce in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        world.nonce = nonce;
        // Several requests are under way when it grows stale.
        world.core.permit(world.now, ip("203.0.113.6:1"));
        assert!(world.pass(Duration::from_secs(600)).iter().all(|event| matches!(event, Event::Permitted(_))));
    }
    assert_eq!(world.core.relayed(), Some(addr(RELAYED)));
}

#[test]
fn a_wrong_password_a_full_server_and_another_one_are_told_apart() {
    let mut world = World::new(false);
    world.key = Key::long_term("ann", "here", "other", PasswordAlgorithm::Md5).unwrap();
    let events = world.turn();
    assert!(matches!(&events[..], [Event::NotAllocated(Refused { code: 401, .. })]), "{events:?}");
    for code in [403, 437, 441, 442, 486, 508] {
        let mut world = World::new(false);
        world.refuses.push((message::ALLOCATE, code));
        let events = world.turn();
        let [Event::NotAllocated(refused) | Event::Lost(Lost::Refused(refused))] = &events[..] else {
            panic!("{events:?}")
        };
        assert_eq!((refused.code, &refused.reason[..]), (code, "no"), "and no bell rings");
    }
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let mut world = World::new(false);
    world.silent = true;
    assert_eq!(world.pass(Duration::from_secs(60)), [Event::Lost(Lost::NoAnswer)]);
    assert_eq!(world.core.poll_timeout(), None);
    let mut over_tcp = World::new(true);
    over_tcp.silent = true;
    assert_eq!(over_tcp.pass(Duration::from_secs(60)), [Event::Lost(Lost::NoAnswer)]);
    assert_eq!(over_tcp.asked.len(), 1, "on a stream nothing is sent twice");
}

#[test]
fn a_server_that_is_away_for_less_than_the_allocation_has_left_changes_nothing() {
    let mut world = World::opened(false);
    world.pass(Duration::from_secs(539));
    world.silent = true;
    assert_eq!(world.pass(Duration::from_secs(50)), []);
    world.silent = false;
    assert_eq!(world.pass(Duration::from_secs(3600)), []);
    world.silent = true;
    assert_eq!(world.pass(Duration::from_secs(1200)), [Event::Lost(Lost::NoAnswer)]);
}

#[test]
fn a_server_that_takes_the_address_back_is_believed() {
    for code in [401, 437, 441, 486] {
        let mut world = World::opened(false);
        world.refuses.push((REFRESH, code));
        let events = world.pass(Duration::from_secs(600));
        assert!(matches!(&events[..], [Event::Lost(Lost::Refused(refused))] if refused.code == code), "{events:?}");
        assert_eq!(world.core.send(world.now, addr(PEER), b"x"), None);
    }
}

#[test]
fn datagrams_go_by_indications_until_a_channel_leads_there_and_then_through_it() {
    for stream in [false, true] {
        let mut world = World::permitted(stream);
        let first = world.core.send(world.now, addr(PEER), b"hello").unwrap();
        let message = Message::parse(&first).unwrap();
        assert_eq!((message.class(), message.method()), (Class::Indication, SEND));
        assert_eq!(message.xor_address(XOR_PEER_ADDRESS), Some(addr(PEER)));
        assert_eq!(message.get(DATA), Some(&b"hello"[..]));
        assert_eq!(world.turn(), []);
        assert_eq!(world.count(CHANNEL_BIND), 1);
        let second = world.core.send(world.now, addr(PEER), b"hello").unwrap();
        assert_eq!(second, channel_data(0x4000, b"hello", stream).unwrap());
        assert_eq!(second.len().is_multiple_of(4), stream, "padded on streams alone");
        let back = channel_data(0x4000, b"and back", false).unwrap();
        let heard = world.core.handle(world.now, datagram(&back).unwrap());
        assert_eq!(heard, Some((addr(PEER), &b"and back"[..])));
    }
}

#[test]
fn permissions_and_channels_are_kept_alive_before_they_end() {
    let mut world = World::permitted(false);
    world.core.send(world.now, addr(PEER), b"x").unwrap();
    world.pass(Duration::from_secs(3600));
    let at = |method| world.asked.iter().filter(|(_, asked)| *asked == method).map(|(at, _)| *at).collect::<Vec<_>>();
    let (permitted, bound) = (at(CREATE_PERMISSION), at(CHANNEL_BIND));
    // Binding a channel lets its peer in as well.
    let mut let_in = [&permitted[..], &bound].concat();
    let_in.sort_unstable();
    assert!(let_in.windows(2).all(|pair| pair[1] - pair[0] <= 240) && *let_in.last().unwrap() >= 3300, "{let_in:?}");
    assert!(bound.windows(2).all(|pair| pair[1] - pair[0] == 540) && bound.len() == 7, "{bound:?}");
}

#[test]
fn a_refused_channel_costs_nothing_but_bytes() {
    let mut world = World::permitted(false);
    world.refuses.push((CHANNEL_BIND, 508));
    for _ in 0..10 {
        let sent = world.core.send(world.now, addr(PEER), b"hello").unwrap();
        assert!(Message::parse(&sent).is_ok(), "an indication");
        assert_eq!(world.turn(), []);
    }
    assert_eq!(world.count(CHANNEL_BIND), 1, "it is not asked for again and again");
}

#[test]
fn strangers_are_not_heard_and_not_sent_to() {
    let mut world = World::permitted(false);
    assert_eq!(world.core.send(world.now, addr("203.0.113.99:1"), b"x"), None);
    let stranger = world.indication("203.0.113.99:1", b"boo");
    assert_eq!(world.core.handle(world.now, Cut::Message(&stranger)), None);
    let known = world.indication("203.0.113.5:77", b"hello");
    assert_eq!(world.core.handle(world.now, Cut::Message(&known)), Some((addr("203.0.113.5:77"), &b"hello"[..])));
    assert_eq!(world.core.handle(world.now, Cut::Channel { number: 0x4007, data: b"boo" }), None, "no such channel");
}

#[test]
fn who_is_forbidden_is_named_and_the_others_are_let_in() {
    let mut world = World::opened(false);
    world.refuses.push((CREATE_PERMISSION, 403));
    world.core.permit(world.now, ip("10.0.0.1:1"));
    let events = world.turn();
    assert!(
        matches!(&events[..], [Event::NotPermitted(ip, Some(Refused { code: 403, .. }))] if ip.to_string() == "10.0.0.1")
    );
    world.refuses.clear();
    world.core.permit(world.now, ip(PEER));
    assert_eq!(world.turn(), [Event::Permitted(ip(PEER))]);
}

#[test]
fn no_more_are_let_in_than_the_table_holds() {
    let mut world = World::opened(false);
    let let_in = (0..200_u8).filter(|n| world.core.permit(world.now, [203, 0, 113, *n].into())).count();
    assert_eq!(let_in, 64);
    assert_eq!(world.turn().len(), 64);
    for _ in 0..10 {
        assert_eq!(world.pass(Duration::from_secs(500)), []);
    }
}

#[test]
fn closing_gives_the_address_back() {
    let mut world = World::opened(false);
    world.core.close(world.now);
    let last = world.core.poll_transmit().unwrap();
    let refresh = Message::parse(&last).unwrap();
    assert_eq!((refresh.method(), refresh.get(message::LIFETIME)), (REFRESH, Some(&[0; 4][..])));
    assert_eq!(refresh.integrity(&world.key), Some(true));
    assert_eq!(world.turn(), [Event::Lost(Lost::Closed)]);
    assert_eq!(world.core.poll_timeout(), None);
}

#[test]
fn who_gives_up_before_the_answer_gives_back_what_may_have_been_granted() {
    let mut world = World::new(false);
    let first = world.core.poll_transmit().unwrap();
    let challenge = world.serve(&first).unwrap();
    world.core.handle(world.now, Cut::Message(&challenge));
    let proved = world.core.poll_transmit().unwrap();
    assert_eq!(Message::parse(&proved).unwrap().method(), message::ALLOCATE);
    world.core.close(world.now);
    let last = world.core.poll_transmit().unwrap();
    let refresh = Message::parse(&last).unwrap();
    assert_eq!((refresh.method(), refresh.get(message::LIFETIME)), (REFRESH, Some(&[0; 4][..])));
    assert_eq!(refresh.integrity(&world.key), Some(true));
    // Before the server has named a realm nothing was granted.
    let mut early = World::new(false);
    early.core.poll_transmit().unwrap();
    early.core.close(early.now);
    assert_eq!(early.core.poll_transmit(), None);
}

#[test]
fn a_permission_whose_renewal_is_lost_lasts_as_long_as_the_servers() {
    let mut world = World::permitted(false);
    world.pass(Duration::from_secs(239));
    world.silent = true;
    assert_eq!(world.pass(Duration::from_secs(45)), [], "one request has gone unanswered to its end");
    world.silent = false;
    assert_eq!(world.pass(Duration::from_secs(100)), []);
    assert!(world.core.send(world.now, addr(PEER), b"x").is_some());
    world.silent = true;
    let events = world.pass(Duration::from_secs(340));
    assert!(events.contains(&Event::NotPermitted(ip(PEER), None)), "{events:?}");
}

#[test]
fn connects_that_nobody_answers_leave_the_allocation_alone() {
    let mut world = World::permitted(true);
    world.silent = true;
    (1..300).for_each(|port| world.core.connect(world.now, SocketAddr::new(ip(PEER), port)));
    let refused = world.turn().len();
    assert_eq!(refused, 299 - 64);
    (0..62_u8).for_each(|n| assert!(world.core.permit(world.now, [203, 0, 113, 100 + n].into())));
    world.silent = false;
    let events = world.pass(Duration::from_secs(600));
    assert!(!events.iter().any(|event| matches!(event, Event::Lost(_))), "{events:?}");
    assert_eq!(world.core.relayed(), Some(addr(RELAYED)));
}

#[test]
fn a_channel_that_sending_asks_for_is_announced() {
    let mut world = World::permitted(false);
    assert!(!world.core.is_asking());
    world.core.send(world.now, addr(PEER), b"x").unwrap();
    assert!(world.core.is_asking(), "the driver has to look");
    world.turn();
    world.core.send(world.now, addr(PEER), b"x").unwrap();
    assert!(!world.core.is_asking(), "it has a channel now");
}

#[test]
fn answers_that_nobody_signed_and_noise_change_nothing() {
    let mut world = World::opened(false);
    world.pass(Duration::from_secs(539));
    world.now += Duration::from_secs(1);
    world.core.handle_timeout(world.now);
    let request = world.core.poll_transmit().unwrap();
    let id = Message::parse(&request).unwrap().id();
    let mut out = vec![0; 256];
    let mut writer = Writer::new(&mut out, Class::Error, REFRESH, id).unwrap();
    let len = writer.error(437, "gone").unwrap().len();
    assert_eq!(world.core.handle(world.now, Cut::Message(&out[..len])), None);
    for noise in [&b""[..], b"\x00", &[0xFF; 40], &[0; 20]] {
        assert_eq!(world.core.handle(world.now, Cut::Message(noise)), None);
    }
    assert_eq!(world.core.poll_event(), None);
    assert_eq!(world.core.relayed(), Some(addr(RELAYED)));
}
