use super::*;
use crate::key::Identity;

fn peer(n: u8) -> PeerId {
    Identity::from_seed([n; 32]).peer_id()
}

fn address(text: &str) -> TicketAddress {
    TicketAddress { addr: text.parse().unwrap(), udp: true, tcp: true }
}

/// What a machine at home makes: one server, its addresses of both families, the router's.
fn common() -> Ticket {
    Ticket::new(peer(1))
        .with_server(ServerUrl::new(Carrier::Natpipe, "rendezvous.example.org", 443, peer(2)).unwrap())
        .with_address(address("192.168.178.24:51820"))
        .with_address(address("203.0.113.77:51820"))
        .with_address(address("[2001:db8:1234:5678:abcd:ef01:2345:6789]:51820"))
}

fn full() -> Ticket {
    let ticket = common()
        .with_server(ServerUrl::new(Carrier::Wss, "example.org", 443, peer(3)).unwrap().with_path("/meet").unwrap())
        .with_broker("mqtts://broker.example.org:8883".parse().unwrap())
        .with_secret(Secret::from_bytes([9; 16]));
    (0..20).fold(ticket, |ticket, n| ticket.with_address(address(&format!("10.0.0.{n}:1"))))
}

#[test]
fn a_ticket_comes_back_from_its_text() {
    for ticket in [Ticket::new(peer(1)), common(), full()] {
        let read: Ticket = ticket.to_string().parse().unwrap();
        assert_eq!(read, ticket);
        assert_eq!(read.addresses(), ticket.addresses());
    }
    assert_eq!(full().addresses().len(), MAX_ADDRESSES);
}

#[test]
fn a_common_ticket_is_shorter_than_300_characters() {
    let text = common().with_secret(Secret::from_bytes([9; 16])).to_string();
    assert!(text.len() < 300, "{} characters", text.len());
}

#[test]
fn white_space_and_case_do_not_matter() {
    let text = common().to_string();
    let wrapped: Vec<_> = text.as_bytes().chunks(40).map(|line| std::str::from_utf8(line).unwrap()).collect();
    assert_eq!(format!(" {}\r\n", wrapped.join("\n\t")).parse(), Ok(common()));
    assert_eq!(text.to_uppercase().parse(), Ok(common()));
    assert!(text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()), "one word: {text}");
}

#[test]
fn wherever_a_ticket_is_cut_it_says_so_and_how_much_is_missing() {
    let text = common().to_string();
    for len in 1..text.len() {
        match text[..len].parse::<Ticket>() {
            Err(TicketError::Cut { missing }) if len >= PREFIX.len() + HEAD_TEXT => {
                assert_eq!(missing, text.len() - len)
            }
            Err(TicketError::Cut { missing }) => assert!(missing > 0),
            other => panic!("cut to {len}: {other:?}"),
        }
    }
}

#[test]
fn every_changed_character_is_found() {
    let text = common().to_string();
    for at in PREFIX.len()..text.len() {
        for other in ['a', 'q', '7', '!', 'ä', '0'] {
            let mut changed: Vec<char> = text.chars().collect();
            if changed[at] == other {
                continue;
            }
            changed[at] = other;
            let read = changed.iter().collect::<String>().parse::<Ticket>();
            assert_eq!(read, Err(TicketError::Changed), "{other} at {at}");
        }
    }
    assert_eq!(format!("{text}a").parse::<Ticket>(), Err(TicketError::Changed));
    assert_eq!(format!("{text}{text}").parse::<Ticket>(), Err(TicketError::Changed));
}

#[test]
fn a_newer_version_and_what_is_no_ticket_are_told_apart() {
    let text = common().to_string();
    assert_eq!(text.replacen("np1", "np2", 1).parse::<Ticket>(), Err(TicketError::Newer { version: 2 }));
    assert_eq!(text.replacen("np1", "np31x", 1).parse::<Ticket>(), Err(TicketError::Newer { version: 31 }));
    for other in ["", "hello", "natpipe://example.org/", &"a".repeat(MAX_TEXT + 1)] {
        assert_eq!(other.parse::<Ticket>(), Err(TicketError::NotATicket), "{other:.20}");
    }
}

fn text_of(body: &[u8]) -> String {
    let mut bytes = head(body.len()).to_vec();
    bytes.extend_from_slice(body);
    bytes.extend_from_slice(&checksum(&bytes));
    format!("{PREFIX}{}", encode(&bytes))
}

#[test]
fn entries_of_a_later_natpipe_are_left_out() {
    let mut body = common().body();
    push(&mut body, 200, b"of a later version");
    push(&mut body, entry::SERVER, &[77; 60]);
    assert_eq!(text_of(&body).parse(), Ok(common()));
}

#[test]
fn a_ticket_that_was_made_wrong_says_so() {
    let body = |kind: u8, value: &[u8]| {
        let mut body = peer(1).as_bytes().to_vec();
        push(&mut body, kind, value);
        body
    };
    let mut cut = body(entry::BROKER, b"mqtt://broker");
    cut.pop();
    for wrong in [
        vec![0; 31],
        vec![0xFF; 32],
        cut,
        body(entry::SECRET, &[1; 15]),
        body(entry::ADDRESS, &[1; 5]),
        body(entry::SERVER, &[0; 10]),
        body(entry::BROKER, b"a b"),
    ] {
        assert!(matches!(text_of(&wrong).parse::<Ticket>(), Err(TicketError::Contents(_))), "{wrong:?}");
    }
}

#[test]
fn debug_shows_no_secret_and_no_address() {
    let shown = format!("{:?}", full());
    assert!(!shown.contains("192.168") && !shown.contains("example") && shown.contains("for once"), "{shown}");
}
