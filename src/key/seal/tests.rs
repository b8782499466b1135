use super::*;

fn peer(n: u8) -> Identity {
    Identity::from_seed([n; 32])
}

fn fresh(n: u8) -> Ephemeral {
    Ephemeral(Zeroizing::new([n; 32]))
}

fn begun() -> Conversation {
    Conversation::begin(&peer(1), peer(2).peer_id(), fresh(11)).unwrap()
}

/// Two ends that have exchanged one message each.
fn talking() -> (Conversation, Conversation) {
    let mut alice = begun();
    let offer = alice.seal(b"offer").unwrap();
    let (mut bob, text) = Conversation::answer(&peer(2), peer(1).peer_id(), &offer, fresh(12)).unwrap();
    assert_eq!(text, b"offer");
    let answer = bob.seal(b"answer").unwrap();
    assert_eq!(alice.open(&answer).unwrap(), b"answer");
    (alice, bob)
}

#[test]
fn two_peers_talk_both_ways_and_know_when_the_other_is_live() {
    let mut alice = begun();
    let offer = alice.seal(b"offer").unwrap();
    assert!(Header::read(&offer).unwrap().opening);
    let (mut bob, _) = Conversation::answer(&peer(2), peer(1).peer_id(), &offer, fresh(12)).unwrap();
    assert!(!bob.is_live() && !alice.is_live());
    let answer = bob.seal(b"answer").unwrap();
    alice.open(&answer).unwrap();
    assert!(alice.is_live() && !bob.is_live());
    for n in 0..100u8 {
        let message = alice.seal(&[n; 100]).unwrap();
        assert!(!Header::read(&message).unwrap().opening);
        assert_eq!(bob.open(&message).unwrap(), [n; 100]);
        assert!(bob.is_live());
        let message = bob.seal(&[n]).unwrap();
        assert_eq!(alice.open(&message).unwrap(), [n]);
    }
}

#[test]
fn several_messages_may_go_before_the_answer_comes() {
    let mut alice = begun();
    let (first, second) = (alice.seal(b"1").unwrap(), alice.seal(b"2").unwrap());
    let (mut bob, _) = Conversation::answer(&peer(2), peer(1).peer_id(), &second, fresh(12)).unwrap();
    assert_eq!(bob.open(&first).unwrap(), b"1");
    assert_eq!(bob.open(&first), Err(SealError::Replayed));
    assert_eq!(bob.open(&second), Err(SealError::Replayed));
}

#[test]
fn every_changed_bit_is_found() {
    let (mut alice, mut bob) = talking();
    let message = alice.seal(b"text").unwrap();
    for bit in 0..message.len() * 8 {
        let mut changed = message.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(bob.open(&changed).is_err(), "bit {bit}");
    }
    for len in 0..message.len() {
        assert!(bob.open(&message[..len]).is_err(), "cut to {len}");
    }
    assert_eq!(bob.open(&message).unwrap(), b"text", "and what was refused has changed nothing");
}

#[test]
fn a_message_opens_once_in_whatever_order_it_comes() {
    let (mut alice, mut bob) = talking();
    let messages: Vec<_> = (0..60u8).map(|n| alice.seal(&[n]).unwrap()).collect();
    for message in messages.iter().rev() {
        bob.open(message).unwrap();
    }
    for message in &messages {
        assert_eq!(bob.open(message), Err(SealError::Replayed));
    }
}

#[test]
fn messages_of_one_conversation_do_not_open_in_another() {
    let (mut alice, mut bob) = talking();
    let message = alice.seal(b"old").unwrap();
    bob.open(&message).unwrap();
    // Bob begins anew and forgets; whoever carries the messages delivers the old ones again.
    let offer = begun().seal(b"offer").unwrap();
    let (mut again, _) = Conversation::answer(&peer(2), peer(1).peer_id(), &offer, fresh(13)).unwrap();
    assert_eq!(again.open(&message), Err(SealError::OtherConversation));
    let mut addressed = message.clone();
    let target = Header::read(&again.seal(b"").unwrap()).unwrap().writer;
    addressed[34..42].copy_from_slice(&target[..8]);
    assert_eq!(again.open(&addressed), Err(SealError::Forged));
    assert!(!again.is_live(), "a replayed opening never makes an end live");
}

#[test]
fn nobody_else_can_read_or_write() {
    let mut alice = begun();
    let offer = alice.seal(b"offer").unwrap();
    let as_bob = |identity: Identity, from: Identity| {
        Conversation::answer(&identity, from.peer_id(), &offer, fresh(12)).map(|_| ()).unwrap_err()
    };
    assert_eq!(as_bob(peer(3), peer(1)), SealError::Forged, "somebody else reads");
    assert_eq!(as_bob(peer(2), peer(3)), SealError::Forged, "said to be of somebody else");
    let (mut mallory, _) = {
        let mut other = Conversation::begin(&peer(1), peer(3).peer_id(), fresh(11)).unwrap();
        Conversation::answer(&peer(3), peer(1).peer_id(), &other.seal(b"").unwrap(), fresh(12)).unwrap()
    };
    let forged = mallory.seal(b"I am Bob").unwrap();
    assert_eq!(alice.open(&forged), Err(SealError::Forged));
    assert!(!alice.is_live());
}

#[test]
fn a_message_does_not_open_at_its_writer() {
    let (mut alice, mut bob) = talking();
    let message = alice.seal(b"text").unwrap();
    assert!(alice.open(&message).is_err());
    bob.open(&message).unwrap();
}

#[test]
fn keys_of_small_order_are_refused() {
    let mut offer = begun().seal(b"offer").unwrap();
    offer[2..34].fill(0);
    let refused = Conversation::answer(&peer(2), peer(1).peer_id(), &offer, fresh(12)).map(|_| ());
    assert_eq!(refused, Err(SealError::Forged));
}

#[test]
fn what_is_no_message_says_so() {
    let (mut alice, mut bob) = talking();
    assert_eq!(bob.open(b""), Err(SealError::Format));
    assert_eq!(bob.open(&[1; 20]), Err(SealError::Format));
    assert_eq!(bob.open(&[2; 200]), Err(SealError::Version(2)));
    assert_eq!(bob.open(&vec![1; OVERHEAD + MAX_TEXT + 1]), Err(SealError::Format));
    assert_eq!(alice.seal(&vec![0; MAX_TEXT + 1]), Err(SealError::TooLong(MAX_TEXT + 1)));
    let longest = alice.seal(&vec![0; MAX_TEXT]).unwrap();
    assert_eq!(bob.open(&longest).unwrap().len(), MAX_TEXT);
}

#[test]
fn the_window_agrees_with_a_set() {
    let mut seen = Seen::default();
    let mut model = std::collections::BTreeSet::new();
    let mut state = 1u64;
    for _ in 0..20_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let highest = model.last().copied().unwrap_or(0u64);
        let number = (highest + 10).saturating_sub((state >> 33) % 90);
        let expected = number > 0 && number + 64 >= highest && !model.contains(&number);
        assert_eq!(seen.mark(number), expected, "{number} after {highest}");
        if expected {
            model.insert(number);
        }
    }
}
