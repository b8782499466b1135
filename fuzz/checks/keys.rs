//! What must hold of any text or bytes that claim to be a ticket, a server's URL or a sealed message: what is read is written
//! again so that it is read as the same, and nothing that was not sealed is opened.

use natpipe::Identity;
use natpipe::key::seal::{Conversation, Ephemeral, Header, SealError};
use natpipe::key::{ServerUrl, Ticket};

/// The only text that Ann has ever sealed for Bob outside of a check.
pub const SEALED: &[u8] = b"an offer";

/// The first byte says what the rest is. True when it was good.
pub fn any(input: &[u8]) -> bool {
    let Some((kind, rest)) = input.split_first() else { return false };
    match kind % 5 {
        0 => std::str::from_utf8(rest).is_ok_and(ticket_text),
        1 => ticket_body(rest),
        2 => std::str::from_utf8(rest).is_ok_and(url),
        3 => sealed(rest),
        _ => altered(rest),
    }
}

/// Ann and Bob.
pub fn two() -> [Identity; 2] {
    [1, 2].map(|seed| Identity::from_seed([seed; 32]))
}

fn ticket_text(text: &str) -> bool {
    let Ok(ticket) = text.parse::<Ticket>() else { return false };
    assert_eq!(ticket.to_string().parse(), Ok(ticket));
    true
}

fn ticket_body(body: &[u8]) -> bool {
    let Ok(ticket) = Ticket::from_body(body) else { return false };
    let text = ticket.to_string();
    assert_eq!(text.to_uppercase().parse::<Ticket>(), Ok(ticket.clone()));
    let wrapped: String =
        text.chars().enumerate().flat_map(|(at, c)| [(at % 40 == 39).then_some('\n'), Some(c)]).flatten().collect();
    assert_eq!(wrapped.parse::<Ticket>(), Ok(ticket.clone()));
    assert!(ticket.servers().len() <= 4 && ticket.brokers().len() <= 4 && ticket.addresses().len() <= 16);
    assert!(ticket.servers().iter().all(|server| url(&server.to_string())));
    // A log may hold it.
    let shown = format!("{ticket:?}");
    assert!(ticket.addresses().iter().all(|address| !shown.contains(&address.addr.to_string())));
    true
}

fn url(text: &str) -> bool {
    let Ok(url) = text.parse::<ServerUrl>() else { return false };
    assert_eq!(url.to_string().parse(), Ok(url.clone()));
    let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_graphic());
    assert!(plain(url.host()) && plain(url.path()) && url.path().starts_with('/') && url.port() > 0, "{text:?}");
    true
}

fn sealed(message: &[u8]) -> bool {
    let header = Header::read(message);
    let [ann, bob] = two();
    match Conversation::answer(&bob, ann.peer_id(), message, Ephemeral::random().expect("random bytes")) {
        Ok((_, text)) => {
            assert!(header.is_ok_and(|header| header.opening));
            assert_eq!(text, SEALED);
            true
        }
        Err(error) => {
            assert!(header.is_ok() || matches!(error, SealError::Format | SealError::Version(_)), "{error}");
            false
        }
    }
}

/// A message that is sealed now and changed in one place, which the input says, is refused; as it was it is opened.
fn altered(input: &[u8]) -> bool {
    let [at, bit, text @ ..] = input else { return false };
    let [ann, bob] = two();
    let fresh = || Ephemeral::random().expect("random bytes");
    let mut ours = Conversation::begin(&ann, bob.peer_id(), fresh()).expect("Bob has a key");
    let first = ours.seal(SEALED).expect("it is short");
    let (mut theirs, _) = Conversation::answer(&bob, ann.peer_id(), &first, fresh()).expect("it is genuine");
    let answer = theirs.seal(&text[..text.len().min(1000)]).expect("it is short");
    let mut changed = answer.clone();
    let at = usize::from(*at) * 31 % changed.len();
    changed[at] ^= 1 << (bit % 8);
    assert!(ours.open(&changed).is_err(), "changed at {at}");
    assert_eq!(ours.open(&answer).expect("it is as it was"), &text[..text.len().min(1000)]);
    assert!(ours.open(&answer).is_err(), "twice");
    true
}
