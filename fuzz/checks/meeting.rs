//! What must hold for any text that names a place to meet and any payload that a broker delivers: shared by the fuzz target and the
//! test that replays its corpus.

use natpipe::key::envelope;
use natpipe::key::seal::Ephemeral;
use natpipe::key::{BrokerUrl, Place};
use natpipe::{Identity, Ticket};

/// The peer that payloads are for, for those who make a corpus.
pub fn reader() -> Identity {
    Identity::from_seed([1; 32])
}

/// Places are written as they were read, alone and in a ticket, and show no password; envelopes open for their addressee alone.
/// True when the input was something.
pub fn meeting(input: &[u8]) -> bool {
    let text = std::str::from_utf8(input).is_ok_and(place);
    let opened = envelope::open(&reader(), input);
    if let Ok((_, sealed)) = &opened {
        assert_eq!(sealed.len() + envelope::OVERHEAD, input.len());
    }
    enveloped(input);
    text || opened.is_ok()
}

fn place(text: &str) -> bool {
    let Ok(place) = text.parse::<Place>() else { return false };
    let shown = format!("{place} {place:?}");
    let ticket: Ticket = Ticket::new(reader().peer_id()).with_place(place.clone());
    let again: Ticket = ticket.to_string().parse().unwrap();
    match &place {
        Place::Broker(url) => {
            let whole = url.with_secrets();
            assert_eq!(BrokerUrl::from_str_or_long(&whole).as_ref().unwrap_or(url), url);
            if let Some((_, password)) = url.login().filter(|(_, password)| password.len() > 8) {
                assert!(!shown.contains(password) || text.matches(password).count() > 1);
            }
            // One that is too long when it is written is left out.
            assert!(again.brokers().is_empty() || again.brokers() == [url.clone()]);
        }
        Place::Server(url) => assert!(again.servers().is_empty() || again.servers() == [url.clone()]),
        _ => {}
    }
    true
}

/// Whatever is put into an envelope comes out of it.
fn enveloped(input: &[u8]) {
    let (from, fresh) = (Identity::from_seed([2; 32]).peer_id(), Ephemeral::random().unwrap());
    if let Ok(closed) = envelope::close(from, reader().peer_id(), input, &fresh) {
        match envelope::open(&reader(), &closed) {
            Ok((writer, sealed)) => assert!(writer == *from.as_bytes() && sealed == input),
            Err(_) => assert!(input.len() < natpipe::key::seal::OVERHEAD),
        }
    }
}

/// Written out, a URL may be longer than one may be read.
trait OrLong: Sized {
    fn from_str_or_long(text: &str) -> Option<Self>;
}

impl OrLong for BrokerUrl {
    fn from_str_or_long(text: &str) -> Option<Self> {
        match text.parse() {
            Ok(url) => Some(url),
            Err(natpipe::key::UrlError::Long(_)) => None,
            Err(error) => panic!("{error}: a URL is written so that it can not be read"),
        }
    }
}
