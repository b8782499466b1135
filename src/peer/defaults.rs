//! Decides: which public servers a node uses where its user has named none.

#[cfg(feature = "mqtt")]
use crate::base::public::BROKERS;
use crate::base::public::STUN;
use crate::key::{BrokerUrl, Place};
use crate::stun::ServerName;

/// Public STUN servers that one node asks: two tell how a NAT maps, and one may be down.
const ASKED: usize = 3;

/// Which public servers may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Public {
    pub(super) stun: bool,
    pub(super) brokers: bool,
}

impl Public {
    /// The brokers where a node is met: only where no place of its own is named.
    pub(super) fn brokers(self, via: &[Place]) -> Vec<BrokerUrl> {
        #[cfg(feature = "mqtt")]
        if self.brokers && via.is_empty() {
            return BROKERS.iter().filter_map(|url| url.parse().ok()).collect();
        }
        let _ = via;
        Vec::new()
    }

    /// The STUN servers to ask: only where no other is at hand, as each rendezvous server is one.
    pub(super) fn stun(self, others: usize) -> Vec<ServerName> {
        let wanted = if self.stun && others == 0 { ASKED } else { 0 };
        STUN.iter().filter_map(|name| name.parse().ok()).take(wanted).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Carrier, Identity, ServerUrl};

    const ALL: Public = Public { stun: true, brokers: true };
    const NONE: Public = Public { stun: false, brokers: false };

    fn server() -> Place {
        ServerUrl::new(Carrier::Natpipe, "example.org", 1, Identity::from_seed([1; 32]).peer_id()).unwrap().into()
    }

    #[cfg(feature = "mqtt")]
    #[test]
    fn public_brokers_are_used_where_no_place_is_named_and_nothing_forbids_it() {
        let used = ALL.brokers(&[]);
        assert_eq!(used.len(), BROKERS.len());
        assert!(used.iter().all(|url| url.carrier().is_tls() && url.login().is_none()));
        assert!(ALL.brokers(&[server()]).is_empty());
        assert!(ALL.brokers(&["mqtt://broker.example.org".parse().unwrap()]).is_empty());
        assert!(NONE.brokers(&[]).is_empty());
        assert!(Public { stun: true, brokers: false }.brokers(&[]).is_empty());
    }

    #[test]
    fn public_stun_servers_are_asked_where_there_is_no_other_and_nothing_forbids_it() {
        assert_eq!(ALL.stun(0).len(), ASKED);
        assert!(ALL.stun(1).is_empty());
        assert!(NONE.stun(0).is_empty());
        assert!(Public { stun: false, brokers: true }.stun(0).is_empty());
        assert!(STUN.iter().all(|name| name.parse::<ServerName>().is_ok()));
    }

    /// A ticket with them is still short enough for a QR code that a camera reads.
    #[cfg(feature = "mqtt")]
    #[test]
    fn a_ticket_with_all_public_brokers_is_short() {
        let ticket = crate::key::Ticket::new(Identity::from_seed([1; 32]).peer_id());
        let ticket = ALL.brokers(&[]).into_iter().fold(ticket, crate::key::Ticket::with_broker);
        assert!(ticket.to_string().len() < 300, "{}", ticket.to_string().len());
    }
}
