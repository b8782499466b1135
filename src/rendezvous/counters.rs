//! Holds: what a rendezvous server has counted, and how Prometheus is told.

use std::fmt::Write as _;

/// What a server has seen and what it holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// TCP connections that came.
    pub connections: u64,
    /// Of these, turned away by a limit.
    pub turned_away: u64,
    /// Of these, never finished their handshake, or with nothing that is TLS by key.
    pub handshakes_failed: u64,
    /// Connections that were ended because they did not keep to the protocol, or were silent.
    pub violations: u64,
    /// Peers registered now.
    pub peers: u64,
    /// Sealed messages that were passed on.
    pub signals: u64,
    /// Sealed messages that could not be passed on.
    pub signals_refused: u64,
    /// Relayed streams now, both ends there.
    pub pairs: u64,
    /// Relayed streams so far, both ends there.
    pub pairs_joined: u64,
    /// Relayed streams that were refused or ended by a limit.
    pub pairs_refused: u64,
    /// Bytes relayed.
    pub relayed: u64,
    /// Relayed bytes that wait for their receivers now.
    pub buffered: u64,
    /// STUN requests that were answered, UDP and TCP together.
    pub stun: u64,
}

impl Counters {
    /// The text that Prometheus reads (exposition format 0.0.4): each counter as `natpipe_…_total`, each number that also
    /// falls as `natpipe_…`.
    pub fn prometheus(&self) -> String {
        let mut text = String::with_capacity(2048);
        for (name, kind, help, value) in self.table() {
            // Writing to a string can not fail.
            let _ =
                write!(text, "# HELP natpipe_{name} {help}\n# TYPE natpipe_{name} {kind}\nnatpipe_{name} {value}\n");
        }
        text
    }

    fn table(&self) -> [(&'static str, &'static str, &'static str, u64); 13] {
        let (counter, gauge) = ("counter", "gauge");
        [
            ("connections_total", counter, "TCP connections that came.", self.connections),
            ("turned_away_total", counter, "Connections turned away by a limit.", self.turned_away),
            ("handshakes_failed_total", counter, "Connections that proved no key.", self.handshakes_failed),
            ("violations_total", counter, "Connections ended for what they said, or for silence.", self.violations),
            ("peers", gauge, "Peers registered now.", self.peers),
            ("signals_total", counter, "Sealed messages passed on.", self.signals),
            ("signals_refused_total", counter, "Sealed messages not passed on.", self.signals_refused),
            ("relay_pairs", gauge, "Relayed streams now.", self.pairs),
            ("relay_pairs_total", counter, "Relayed streams so far.", self.pairs_joined),
            ("relay_pairs_refused_total", counter, "Relayed streams ended by a limit.", self.pairs_refused),
            ("relay_bytes_total", counter, "Bytes relayed.", self.relayed),
            ("relay_buffered_bytes", gauge, "Relayed bytes that wait for their receivers now.", self.buffered),
            ("stun_answers_total", counter, "STUN requests answered.", self.stun),
        ]
    }
}
