//! Decides: at which topic of a broker a peer listens.

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};

use crate::key::PeerId;

const PREFIX: &str = "natpipe/1/";
const SALT: &[u8] = b"natpipe mqtt topic, version 1";
/// Bytes of the hash that are used: nobody finds another key with the same.
const LEN: usize = 20;

/// The topic of a peer: who does not know its key learns nothing of it.
pub fn topic(peer: PeerId) -> String {
    let hash = digest(&SHA256, &[SALT, peer.as_bytes()].concat());
    format!("{PREFIX}{}", HEXLOWER.encode(&hash.as_ref()[..LEN]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Identity;

    #[test]
    fn a_topic_is_always_the_same_and_shows_no_key() {
        let ann = Identity::from_seed([1; 32]).peer_id();
        assert_eq!(topic(ann), "natpipe/1/dac01caa78500f61d001c351f11628ebc379db4d");
        assert_ne!(topic(ann), topic(Identity::from_seed([2; 32]).peer_id()));
        assert!(!topic(ann).contains(&HEXLOWER.encode(&ann.as_bytes()[..4])));
    }
}
