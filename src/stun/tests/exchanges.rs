//! One server's exchange comes to the right end, whatever the server does.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{addr, id_of, ms, written};
use crate::stun::{
    Answer, Attempt, BINDING, Change, Class, Credentials, Failure, Form, Key, Message, PasswordAlgorithm, Request,
    Timing, TransactionId, Transmit, Writer, kind,
};

const SERVER: &str = "192.0.2.1:3478";
const OTHER: &str = "192.0.2.9:3478";
const MAPPED: &str = "198.51.100.7:4000";
const NONCE: &[u8] = b"f//499k954d6OL34oL9FSTvy64sA";

/// An attempt under way, with its clock.
struct Exchange {
    attempt: Attempt,
    now: Instant,
}

impl Exchange {
    fn begin(request: Request) -> Self {
        let now = Instant::now();
        let attempt = Attempt::new(&request, addr(SERVER), [5; 32], now);
        Self { attempt, now }
    }

    /// The request that is due now.
    fn sent(&mut self) -> Transmit {
        self.attempt.handle_timeout(self.now);
        let transmit = self.attempt.poll_transmit().expect("a request is due");
        assert_eq!(self.attempt.poll_transmit(), None);
        transmit
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.attempt.handle_timeout(self.now);
    }

    fn hear(&mut self, from: &str, class: Class, id: TransactionId, fill: impl FnOnce(&mut Writer<'_>)) -> bool {
        self.attempt.handle_packet(self.now, addr(from), &written(class, id, fill))
    }

    fn hear_address(&mut self, from: &str, id: TransactionId) -> bool {
        self.hear(from, Class::Success, id, |writer| mapped(writer, MAPPED))
    }

    /// Lets the time run until it ends.
    fn wait(&mut self) -> Result<Answer, Failure> {
        for _ in 0..100 {
            if let Some(outcome) = self.attempt.poll_outcome() {
                return outcome;
            }
            self.now = self.attempt.poll_timeout().expect("it is not over");
            self.attempt.handle_timeout(self.now);
        }
        panic!("no end after a hundred steps");
    }

    fn answer(&mut self) -> Answer {
        self.attempt.poll_outcome().expect("it has ended").expect("it has succeeded")
    }

    fn failure(&mut self) -> Failure {
        self.attempt.poll_outcome().expect("it has ended").expect_err("it has failed")
    }
}

fn mapped(writer: &mut Writer<'_>, address: &str) {
    writer.xor_address(kind::XOR_MAPPED_ADDRESS, addr(address)).unwrap();
}

#[test]
fn an_answer_says_all_that_the_server_said() {
    let mut exchange = Exchange::begin(Request::new());
    let id = id_of(&exchange.sent().bytes);
    exchange.now += ms(40);
    assert!(exchange.hear(SERVER, Class::Success, id, |writer| {
        mapped(writer, MAPPED);
        writer.address(kind::MAPPED_ADDRESS, addr("10.0.0.1:1")).unwrap();
        writer.address(kind::OTHER_ADDRESS, addr(OTHER)).unwrap();
        writer.address(kind::RESPONSE_ORIGIN, addr(SERVER)).unwrap();
        writer.attribute(kind::SOFTWARE, b"somebody").unwrap().fingerprint().unwrap();
    }));
    let answer = exchange.answer();
    assert_eq!((answer.asked, answer.from), (addr(SERVER), addr(SERVER)));
    assert_eq!((answer.mapped, answer.plain), (addr(MAPPED), Some(addr("10.0.0.1:1"))));
    assert_eq!((answer.other, answer.origin), (Some(addr(OTHER)), Some(addr(SERVER))));
    assert_eq!(answer.software.as_deref(), Some("somebody"));
    assert_eq!((answer.round_trip, answer.requests, answer.classic), (Some(ms(40)), 1, false));
    assert_eq!(exchange.attempt.poll_timeout(), None);
}

#[test]
fn a_lost_request_is_sent_again_under_the_same_id() {
    let mut exchange = Exchange::begin(Request::new());
    let first = exchange.sent();
    exchange.pass(ms(499));
    assert_eq!(exchange.attempt.poll_transmit(), None);
    exchange.now += ms(1);
    assert_eq!(exchange.sent(), first);
    exchange.hear_address(SERVER, id_of(&first.bytes));
    let answer = exchange.answer();
    assert_eq!((answer.requests, answer.round_trip), (2, None));
}

#[test]
fn a_silent_server_is_given_up_after_39_and_a_half_seconds() {
    let mut exchange = Exchange::begin(Request::new());
    let waited = Duration::from_millis(39_500);
    let failure = exchange.wait().unwrap_err();
    assert!(matches!(failure, Failure::NoAnswer { requests: 7, waited: w, .. } if w == waited), "{failure}");
}

#[test]
fn over_a_stream_the_wait_is_as_configured() {
    let timing = Timing::default().stream_timeout(ms(3000));
    let mut exchange = Exchange::begin(Request::new().over_stream().timing(timing));
    let failure = exchange.wait().unwrap_err();
    assert!(matches!(failure, Failure::NoAnswer { requests: 1, waited, .. } if waited == ms(3000)), "{failure}");
}

#[test]
fn what_does_not_belong_here_is_dropped_and_counted_by_reason() {
    let mut exchange = Exchange::begin(Request::new());
    let id = id_of(&exchange.sent().bytes);
    assert!(!exchange.hear_address(SERVER, TransactionId::modern([1; 12])));
    assert!(exchange.hear_address(OTHER, id));
    assert!(exchange.hear_address("192.0.2.1:3479", id));
    assert!(!exchange.attempt.handle_packet(exchange.now, addr(SERVER), b"junk"));
    assert!(exchange.hear(SERVER, Class::Success, id, |_| ()));
    assert!(exchange.hear(SERVER, Class::Success, id, |writer| mapped(writer, "0.0.0.0:1")));
    assert!(exchange.hear(SERVER, Class::Request, id, |writer| mapped(writer, MAPPED)));
    assert!(exchange.hear(SERVER, Class::Error, id, |_| ()));
    let dropped = exchange.attempt.dropped();
    assert_eq!((dropped.unmatched, dropped.elsewhere, dropped.malformed), (1, 2, 5));
    assert!(exchange.attempt.poll_outcome().is_none());
    assert!(exchange.hear_address(SERVER, id));
    assert_eq!(exchange.answer().mapped, addr(MAPPED));
    assert!(!exchange.hear_address(SERVER, id), "the second answer belongs to nothing");
    assert_eq!(exchange.attempt.dropped().unmatched, 2);
}

#[test]
fn an_answer_with_a_wrong_fingerprint_is_malformed() {
    let mut exchange = Exchange::begin(Request::new());
    let id = id_of(&exchange.sent().bytes);
    exchange.hear(SERVER, Class::Success, id, |writer| {
        mapped(writer, MAPPED);
        writer.attribute(kind::FINGERPRINT, &[0; 4]).unwrap();
    });
    assert_eq!(exchange.attempt.dropped().malformed, 1);
}

#[test]
fn a_changed_answer_may_come_from_anywhere_unless_one_place_is_named() {
    let change = Change { ip: true, port: true };
    let mut exchange = Exchange::begin(Request::new().change(change));
    let id = id_of(&exchange.sent().bytes);
    exchange.hear_address(OTHER, id);
    assert_eq!(exchange.answer().from, addr(OTHER));

    let mut exchange = Exchange::begin(Request::new().change(change).answer_from(addr(OTHER)));
    let id = id_of(&exchange.sent().bytes);
    exchange.hear_address(SERVER, id);
    assert_eq!(exchange.attempt.dropped().elsewhere, 1);
    exchange.hear_address(OTHER, id);
    assert_eq!(exchange.answer().from, addr(OTHER));
}

#[test]
fn an_ipv6_socket_hears_an_ipv4_server_as_itself() {
    let mut exchange = Exchange::begin(Request::new());
    let id = id_of(&exchange.sent().bytes);
    exchange.hear_address("[::ffff:192.0.2.1]:3478", id);
    assert_eq!(exchange.answer().mapped, addr(MAPPED));
}

#[test]
fn an_address_of_another_family_is_this_servers_failure() {
    let mut exchange = Exchange::begin(Request::new());
    let id = id_of(&exchange.sent().bytes);
    exchange.hear(SERVER, Class::Success, id, |writer| mapped(writer, "[2001:db8::1]:1"));
    assert!(matches!(exchange.failure(), Failure::Family { mapped, .. } if mapped == addr("[2001:db8::1]:1")));
}

#[test]
fn an_error_is_told_with_its_code_and_words() {
    let mut exchange = Exchange::begin(Request::new());
    let id = id_of(&exchange.sent().bytes);
    exchange.hear(SERVER, Class::Error, id, |writer| _ = writer.error(500, "\u{1b}Server Error\0").unwrap());
    let failure = exchange.failure();
    assert!(failure.to_string().ends_with("500 Server Error"), "nothing that a terminal obeys: {failure:?}");
}

#[test]
fn a_server_that_can_not_change_is_not_asked_in_old_words() {
    let mut exchange = Exchange::begin(Request::new().change(Change { ip: true, port: false }));
    let id = id_of(&exchange.sent().bytes);
    exchange.hear(SERVER, Class::Error, id, |writer| {
        writer.error(420, "").unwrap().unknown_attributes(&[kind::CHANGE_REQUEST]).unwrap();
    });
    assert!(matches!(exchange.failure(), Failure::Refused { code: 420, unknown, .. } if unknown == [3]));
}

#[test]
fn a_server_that_does_not_like_the_words_is_asked_in_old_ones() {
    let mut exchange = Exchange::begin(Request::new());
    let id = id_of(&exchange.sent().bytes);
    exchange.hear(SERVER, Class::Error, id, |writer| _ = writer.error(400, "").unwrap());
    let again = exchange.attempt.poll_transmit().expect("it is asked again at once");
    let id = id_of(&again.bytes);
    assert!(id.is_classic());
    assert_eq!(again.bytes.len(), 20);
    exchange.hear(SERVER, Class::Success, id, |writer| {
        writer.address(kind::MAPPED_ADDRESS, addr(MAPPED)).unwrap();
        writer.address(kind::CHANGED_ADDRESS, addr(OTHER)).unwrap();
        writer.attribute(0x0021, &[0; 4]).unwrap();
    });
    let answer = exchange.answer();
    assert_eq!((answer.mapped, answer.other, answer.classic), (addr(MAPPED), Some(addr(OTHER)), true));
}

#[test]
fn a_modern_answer_that_can_not_be_understood_is_a_failure() {
    let mut exchange = Exchange::begin(Request::new().form(Form::Modern));
    let id = id_of(&exchange.sent().bytes);
    exchange.hear(SERVER, Class::Success, id, |writer| {
        mapped(writer, MAPPED);
        writer.attribute(0x7001, &[]).unwrap();
    });
    assert!(matches!(exchange.failure(), Failure::NotUnderstood { attributes, .. } if attributes == [0x7001]));
}

fn send_on(exchange: &mut Exchange, from: &str, to: &str) -> Option<Transmit> {
    let id = id_of(&exchange.attempt.poll_transmit().unwrap_or_else(|| exchange.sent()).bytes);
    exchange.hear(from, Class::Error, id, |writer| {
        writer.error(300, "Try Alternate").unwrap().address(kind::ALTERNATE_SERVER, addr(to)).unwrap();
    });
    exchange.attempt.poll_transmit()
}

#[test]
fn a_server_that_sends_on_is_followed_and_named() {
    let mut exchange = Exchange::begin(Request::new());
    let next = send_on(&mut exchange, SERVER, OTHER).expect("the other one is asked at once");
    assert_eq!(next.to, addr(OTHER));
    exchange.hear_address(SERVER, id_of(&next.bytes));
    assert_eq!(exchange.attempt.dropped().elsewhere, 1);
    exchange.hear_address(OTHER, id_of(&next.bytes));
    let answer = exchange.answer();
    assert_eq!((answer.asked, answer.from), (addr(SERVER), addr(OTHER)));
}

#[test]
fn circles_other_families_nowhere_and_what_is_inside_are_not_followed() {
    let inside = ["127.0.0.1:3478", "192.168.1.1:3478", "169.254.169.254:80"];
    for to in [SERVER, "[2001:db8::1]:3478", "0.0.0.0:3478", "192.0.2.9:0"].into_iter().chain(inside) {
        let mut exchange = Exchange::begin(Request::new());
        assert_eq!(send_on(&mut exchange, SERVER, to), None);
        assert!(matches!(exchange.failure(), Failure::Redirected { to: Some(t), .. } if t == addr(to)), "{to}");
    }
    let mut exchange = Exchange::begin(Request::new().most_redirects(0));
    assert_eq!(send_on(&mut exchange, SERVER, OTHER), None);
    assert!(matches!(exchange.failure(), Failure::Redirected { .. }));
}

fn challenge(writer: &mut Writer<'_>, code: u16, nonce: &[u8]) {
    writer.error(code, "").unwrap().attribute(kind::REALM, b"example.org").unwrap();
    writer.attribute(kind::NONCE, nonce).unwrap();
}

fn account() -> Request {
    Request::new().credentials(Credentials::long_term("ann", "secret"))
}

fn key(algorithm: PasswordAlgorithm) -> Key {
    Key::long_term("ann", "example.org", "secret", algorithm).unwrap()
}

/// An exchange whose first request was challenged, and its second request.
fn challenged(fill: impl FnOnce(&mut Writer<'_>)) -> (Exchange, Vec<u8>) {
    let mut exchange = Exchange::begin(account());
    let first = exchange.sent().bytes;
    assert_eq!(Message::parse(&first).unwrap().get(kind::USERNAME), None);
    exchange.hear(SERVER, Class::Error, id_of(&first), fill);
    let second = exchange.attempt.poll_transmit().expect("it is asked again at once").bytes.to_vec();
    assert_ne!(id_of(&first), id_of(&second));
    (exchange, second)
}

#[test]
fn an_account_is_proved_after_the_server_asked_for_it() {
    let (mut exchange, second) = challenged(|writer| challenge(writer, 401, NONCE));
    let message = Message::parse(&second).unwrap();
    assert_eq!((message.text(kind::USERNAME), message.text(kind::REALM)), (Some("ann"), Some("example.org")));
    assert_eq!(message.get(kind::NONCE), Some(NONCE));
    let key = key(PasswordAlgorithm::Md5);
    assert_eq!(message.integrity(&key), Some(true));
    assert_eq!(message.fingerprint(), Some(true));

    exchange.hear_address(SERVER, message.id());
    assert_eq!(exchange.attempt.dropped().unauthentic, 1, "an answer that anyone could have sent");
    exchange.hear(SERVER, Class::Success, message.id(), |writer| {
        mapped(writer, MAPPED);
        writer.integrity(&key).unwrap();
    });
    assert_eq!(exchange.answer().mapped, addr(MAPPED));
}

#[test]
fn a_stale_nonce_is_replaced_but_not_for_ever() {
    let (mut exchange, second) = challenged(|writer| challenge(writer, 401, NONCE));
    let mut id = id_of(&second);
    for round in 0..10 {
        exchange.hear(SERVER, Class::Error, id, |writer| challenge(writer, 438, b"fresh"));
        let Some(next) = exchange.attempt.poll_transmit() else {
            assert_eq!(round, 3);
            assert!(matches!(exchange.failure(), Failure::Unauthorized { .. }));
            return;
        };
        assert_eq!(Message::parse(&next.bytes).unwrap().get(kind::NONCE), Some(&b"fresh"[..]));
        id = id_of(&next.bytes);
    }
    panic!("it never gave up");
}

#[test]
fn wrong_or_no_credentials_are_unauthorized() {
    let (mut exchange, second) = challenged(|writer| challenge(writer, 401, NONCE));
    exchange.hear(SERVER, Class::Error, id_of(&second), |writer| challenge(writer, 401, NONCE));
    assert!(matches!(exchange.failure(), Failure::Unauthorized { .. }));

    let mut exchange = Exchange::begin(Request::new());
    let id = id_of(&exchange.sent().bytes);
    exchange.hear(SERVER, Class::Error, id, |writer| challenge(writer, 401, NONCE));
    assert!(matches!(exchange.failure(), Failure::Unauthorized { .. }));
}

#[test]
fn sha256_is_used_where_offered_and_then_insisted_on() {
    let offered = [0, 2, 0, 0, 0, 1, 0, 0];
    let (mut exchange, second) = challenged(|writer| {
        challenge(writer, 401, b"obMatJos2gAAAxyz");
        writer.attribute(kind::PASSWORD_ALGORITHMS, &offered).unwrap();
    });
    let message = Message::parse(&second).unwrap();
    assert_eq!(message.get(kind::PASSWORD_ALGORITHMS), Some(&offered[..]));
    assert_eq!(message.get(kind::PASSWORD_ALGORITHM), Some(&[0, 2, 0, 0][..]));
    assert_eq!(message.get(kind::MESSAGE_INTEGRITY), None);
    let key = key(PasswordAlgorithm::Sha256);
    assert_eq!(message.integrity(&key), Some(true));
    exchange.hear(SERVER, Class::Success, message.id(), |writer| {
        mapped(writer, MAPPED);
        writer.integrity(&key).unwrap();
    });
    assert_eq!(exchange.attempt.dropped().unauthentic, 1);
    exchange.hear(SERVER, Class::Success, message.id(), |writer| {
        mapped(writer, MAPPED);
        writer.integrity_sha256(&key).unwrap();
    });
    assert_eq!(exchange.answer().mapped, addr(MAPPED));
}

#[test]
fn a_challenge_whose_algorithms_were_taken_out_is_not_taken_up() {
    for nonce in [b"obMatJos2gAAAxyz", b"obMatJos2AAABxyz"] {
        let mut exchange = Exchange::begin(account());
        let id = id_of(&exchange.sent().bytes);
        exchange.hear(SERVER, Class::Error, id, |writer| challenge(writer, 401, nonce));
        assert!(matches!(exchange.failure(), Failure::Unauthorized { .. }));
    }
}

#[test]
fn a_short_term_password_signs_at_once_and_only_signed_answers_count() {
    let mut exchange = Exchange::begin(Request::new().credentials(Credentials::short_term("ann", "secret")));
    let bytes = exchange.sent().bytes;
    let message = Message::parse(&bytes).unwrap();
    let key = Key::short_term("secret").unwrap();
    assert_eq!((message.text(kind::USERNAME), message.integrity(&key)), (Some("ann"), Some(true)));
    assert!(message.get(kind::MESSAGE_INTEGRITY).is_some() && message.get(kind::MESSAGE_INTEGRITY_SHA256).is_some());
    exchange.hear_address(SERVER, message.id());
    let failure = exchange.wait().unwrap_err();
    assert!(matches!(failure, Failure::Unauthentic { dropped: 1, .. }), "{failure}");
}

#[test]
fn credentials_that_can_not_be_a_key_fail_before_anything_is_sent() {
    let mut exchange = Exchange::begin(Request::new().credentials(Credentials::short_term("ann", "a\tb")));
    assert!(matches!(exchange.failure(), Failure::Credentials { .. }));
    assert_eq!((exchange.attempt.poll_transmit(), exchange.attempt.poll_timeout()), (None, None));
    let mut exchange = Exchange::begin(Request::new().credentials(Credentials::short_term("a".repeat(9999), "b")));
    assert!(matches!(exchange.failure(), Failure::TooLong { .. }));
}

#[test]
fn secrets_are_not_printed() {
    let credentials = Credentials::long_term("ann", "secret");
    let shown = format!("{credentials:?} {:?} {:?}", key(PasswordAlgorithm::Md5), account());
    assert!(shown.contains("ann") && !shown.contains("secret"), "{shown}");
}

#[test]
fn a_server_that_can_not_be_reached_fails_with_the_systems_reason() {
    let mut exchange = Exchange::begin(Request::new());
    exchange.sent();
    exchange.attempt.handle_unreachable(io::ErrorKind::ConnectionRefused.into());
    let failure = exchange.failure();
    assert!(matches!(failure, Failure::Unreachable { server, .. } if server == addr(SERVER)));
    assert_eq!(io::Error::from(failure).kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn each_attempt_has_ids_of_its_own() {
    let now = Instant::now();
    let server: SocketAddr = addr(SERVER);
    let ids: Vec<_> = (0..3)
        .map(|seed| {
            let mut attempt = Attempt::new(&Request::new(), server, [seed; 32], now);
            attempt.handle_timeout(now);
            id_of(&attempt.poll_transmit().unwrap().bytes)
        })
        .collect();
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
    assert_eq!(BINDING, 1);
}
