//! Decides: the nftables ruleset of each kind of router.

use std::fmt::Write;
use std::net::Ipv4Addr;

use super::kind::{Input, Kind, Setup};
use super::plan::Lan;

/// The router's interface to the internet.
pub(crate) const WAN: &str = "wan";
/// Its interface to the network behind it.
pub(crate) const LAN: &str = "lan";

/// Ports handed out by maps: a power of two, so that a hash falls evenly on them.
const MAPPED_PORTS: u16 = 4096;
/// The first of them, below the ports that hosts choose by themselves (32768 and up), so that the two differ.
const FIRST_MAPPED: u16 = 20_000;
/// The same where ports are counted: 32 punches of 512 packets, then the count begins anew, and one of them sees it.
const COUNTED_PORTS: u16 = 16_384;
const FIRST_COUNTED: u16 = 10_000;
/// What [`Kind::NonPreserving`] hands out: above what hosts choose by themselves (up to 60999).
const NON_PRESERVING: &str = "61000-65535";
/// A carrier's ports, and how many each host gets of them.
pub(crate) const BLOCK: u16 = 64;
pub(crate) const FIRST_BLOCK: u16 = 40_000;
/// The hosts that get a block of their own.
const BLOCKS: u8 = 32;
/// The ports of [`Kind::PortBlockSymmetric`].
const SHARED_BLOCK: &str = "40000-40511";

/// What the rules of one router speak of.
pub(crate) struct Router {
    pub(crate) setup: Setup,
    /// Its external address.
    pub(crate) address: Ipv4Addr,
    pub(crate) lan: Lan,
}

/// What a kind adds to the frame that all have in common.
#[derive(Default)]
struct Parts {
    sets: String,
    pre: Vec<String>,
    post: Vec<String>,
    forward: Vec<String>,
}

/// Kernel settings below `/proc/sys/net` that the kind wants.
pub(crate) fn settings(kind: Kind) -> &'static [(&'static str, &'static str)] {
    match kind {
        Kind::ShortLived => &[
            ("netfilter/nf_conntrack_udp_timeout", "2"),
            ("netfilter/nf_conntrack_udp_timeout_stream", "4"),
            ("netfilter/nf_conntrack_tcp_timeout_syn_sent", "5"),
            ("netfilter/nf_conntrack_tcp_timeout_established", "10"),
        ],
        // A flow has one port here. Where a connection that is over still holds it (120 s by default), the next one that falls on it
        // loses its SYN, however often that is sent again.
        Kind::AddressDependent => &[("netfilter/nf_conntrack_tcp_timeout_time_wait", "1")],
        _ => &[],
    }
}

impl Router {
    /// The whole ruleset.
    pub(crate) fn ruleset(&self) -> String {
        let parts = self.parts();
        let mut text = String::new();
        if self.setup.kind.has_v4() || self.setup.kind == Kind::Nat64 {
            text += &self.v4(&parts);
        }
        if self.setup.kind.has_v6() && self.setup.kind != Kind::Open {
            text += &self.v6();
        }
        text
    }

    fn v4(&self, parts: &Parts) -> String {
        let mut text = format!("table ip nat {{\n{}", parts.sets);
        chain(&mut text, "prerouting", "nat hook prerouting priority dstnat", &parts.pre);
        chain(&mut text, "postrouting", "nat hook postrouting priority srcnat", &parts.post);
        text += "}\ntable ip filter {\n";
        chain(&mut text, "forward", "filter hook forward priority filter", &parts.forward);
        chain(&mut text, "input", "filter hook input priority filter", &self.input("icmp"));
        text + "}\n"
    }

    fn v6(&self) -> String {
        let mut text = String::from("table ip6 filter {\n");
        chain(&mut text, "forward", "filter hook forward priority filter", &answers_only());
        chain(&mut text, "input", "filter hook input priority filter", &self.input("icmpv6"));
        text + "}\n"
    }

    /// Neighbours and errors are always heard: without them nothing works at all.
    fn input(&self, icmp: &str) -> Vec<String> {
        let mut rules = vec![format!("iifname {WAN} ct state {{ established, related }} accept")];
        match self.setup.input {
            _ if self.setup.kind == Kind::Open => return Vec::new(),
            Input::Accept => return Vec::new(),
            Input::Drop => rules.push(format!("iifname {WAN} meta l4proto != {icmp} drop")),
            Input::Reject => {
                rules.push(format!("iifname {WAN} meta l4proto tcp reject with tcp reset"));
                rules.push(format!("iifname {WAN} meta l4proto udp reject with {icmp} type admin-prohibited"));
            }
        }
        rules
    }

    fn parts(&self) -> Parts {
        let masquerade = || vec![format!("oifname {WAN} masquerade")];
        let home = Parts { post: masquerade(), forward: answers_only(), ..Parts::default() };
        match self.setup.kind {
            // The model does it all, and double NATs are two routers.
            Kind::Model(..) | Kind::Double | Kind::DoubleSymmetric | Kind::Open | Kind::V6Firewall => Parts::default(),
            Kind::Firewall => Parts { forward: answers_only(), ..Parts::default() },
            Kind::Home | Kind::Linux | Kind::Rejecting | Kind::ShortLived | Kind::DualStack | Kind::Nat64 => home,
            Kind::NonPreserving => Parts { post: source("masquerade to", &format!(":{NON_PRESERVING}")), ..home },
            Kind::SymmetricRandom => Parts { post: random(), ..home },
            Kind::SymmetricSequential => {
                Parts { post: self.mapped("numgen inc", COUNTED_PORTS, |n| FIRST_COUNTED + n), ..home }
            }
            Kind::SymmetricDescending => Parts {
                post: self.mapped("numgen inc", COUNTED_PORTS, |n| FIRST_COUNTED + COUNTED_PORTS - 1 - n),
                ..home
            },
            Kind::AddressDependent => {
                let hash = "jhash ip saddr . th sport . ip daddr";
                Parts { post: self.mapped(hash, MAPPED_PORTS, |n| FIRST_MAPPED + n), ..home }
            }
            Kind::PortBlock => Parts { post: self.blocks(), ..home },
            Kind::PortBlockSymmetric => {
                Parts { post: source("masquerade to", &format!(":{SHARED_BLOCK} fully-random")), ..home }
            }
            Kind::FullCone | Kind::Cgnat => self.learning(masquerade(), OPEN),
            Kind::Restricted => self.learning(masquerade(), SEEN),
            Kind::SymmetricEif => self.learning(random(), OPEN),
            Kind::SymmetricAdf => self.learning(random(), SEEN),
            Kind::Hairpin => self.hairpin(&format!("snat to {}", self.address)),
            Kind::HairpinInternal => self.hairpin("masquerade"),
            Kind::OneToOne => Parts { forward: Vec::new(), ..self.one_to_one() },
            Kind::OneToOneFirewalled => self.one_to_one(),
            Kind::TcpHostile => without_inbound_syn("drop"),
            Kind::TcpResetting => without_inbound_syn("reject with tcp reset"),
            Kind::PatchbayOpen => self.patchbay(Vec::new()),
            Kind::PatchbayModerate => self.patchbay(answers_only()),
            Kind::PatchbayStrict => Parts { post: vec![format!("oifname {WAN} masquerade random")], ..home },
            Kind::UdpBlocked => {
                let forward = [vec!["meta l4proto udp drop".to_owned()], answers_only()].concat();
                Parts { forward, ..home }
            }
        }
    }

    /// Each new flow's port is looked up by this key.
    fn mapped(&self, key: &str, count: u16, port: impl Fn(u16) -> u16) -> Vec<String> {
        let modulus = format!("mod {count}");
        let pairs: Vec<String> = (0..count).map(|n| format!("{n} : {}", port(n))).collect();
        let table = pairs.join(", ");
        source("snat ip to", &format!("{} : {key} {modulus} map {{ {table} }}", self.address))
    }

    /// Each host has its own ports.
    fn blocks(&self) -> Vec<String> {
        let [a, b, c, _] = self.lan.gateway().v4.octets();
        let block = |n: u8| {
            let first = FIRST_BLOCK + u16::from(n) * BLOCK;
            format!("{a}.{b}.{c}.{} : {} . {first}-{}", n + 2, self.address, first + BLOCK - 1)
        };
        let table = (0..BLOCKS).map(block).collect::<Vec<_>>().join(", ");
        source("snat ip to", &format!("ip saddr map {{ {table} }}"))
    }

    /// The mapping is learnt after translation, so it is right whatever port was chosen; who is let in is
    /// decided by looking it up.
    fn learning(&self, post: Vec<String>, condition: &str) -> Parts {
        let wanted = |proto: &str| {
            let condition = condition.replace("PROTO", proto);
            let to = format!("dnat ip to {proto} dport map @mapped_{proto}");
            format!("iifname {WAN} ip daddr {} meta l4proto {proto} {condition} {to}", self.address)
        };
        Parts { sets: learnt(), pre: vec![wanted("udp"), wanted("tcp")], post, forward: Vec::new() }
    }

    fn hairpin(&self, source: &str) -> Parts {
        let mut parts = self.learning(vec![format!("oifname {WAN} masquerade")], OPEN);
        let twins: Vec<String> = parts.pre.iter().map(|rule| rule.replacen(WAN, LAN, 1)).collect();
        parts.pre.extend(twins);
        parts.post.push(format!("oifname {LAN} ct status dnat ip saddr {} {source}", self.network()));
        parts
    }

    fn one_to_one(&self) -> Parts {
        let [a, b, c, _] = self.lan.gateway().v4.octets();
        let host = Ipv4Addr::new(a, b, c, 2);
        Parts {
            pre: vec![format!("iifname {WAN} ip daddr {} dnat to {host}", self.address)],
            post: vec![format!("oifname {WAN} ip saddr {host} snat to {}", self.address)],
            forward: answers_only(),
            ..Parts::default()
        }
    }

    /// Its cone is UDP's alone, and learnt before translation, which is right while ports are preserved.
    fn patchbay(&self, forward: Vec<String>) -> Parts {
        Parts {
            sets: format!("map mapped_udp {{ {MAPPED} }}\n"),
            pre: vec![format!("iifname {WAN} meta l4proto udp dnat ip to udp dport map @mapped_udp")],
            post: vec![
                format!("oifname {WAN} meta l4proto udp update @mapped_udp {{ udp sport : ip saddr . udp sport }}"),
                format!("oifname {WAN} snat to {}", self.address),
            ],
            forward,
        }
    }

    fn network(&self) -> String {
        let net = self.lan.v4();
        format!("{}/{}", net.address, net.bits)
    }
}

/// Anyone is let in.
const OPEN: &str = "";
/// Those are let in to whose address the port has sent.
const SEEN: &str = "PROTO dport . ip saddr @seen";

fn random() -> Vec<String> {
    vec![format!("oifname {WAN} masquerade fully-random")]
}

fn source(what: &str, to: &str) -> Vec<String> {
    vec![format!("meta l4proto {{ tcp, udp }} oifname {WAN} {what} {to}")]
}

fn answers_only() -> Vec<String> {
    vec![format!("iifname {WAN} ct state {{ established, related }} accept"), format!("iifname {WAN} drop")]
}

fn without_inbound_syn(verdict: &str) -> Parts {
    let syn = format!("iifname {WAN} tcp flags & (syn | ack) == syn {verdict}");
    let forward = [vec![syn], answers_only()].concat();
    Parts { post: vec![format!("oifname {WAN} masquerade")], forward, ..Parts::default() }
}

/// The type of a map from external ports to internal sockets.
const MAPPED: &str = "type inet_service : ipv4_addr . inet_service; flags dynamic,timeout; timeout 300s; size 65536;";

/// Maps from external ports to internal sockets, and who was sent to, filled by packets that leave.
fn learnt() -> String {
    let mut text = String::new();
    for proto in ["udp", "tcp"] {
        let _ = writeln!(text, "map mapped_{proto} {{ {MAPPED} }}");
    }
    text += "set seen { type inet_service . ipv4_addr; flags dynamic,timeout; timeout 300s; size 65536; }\n";
    let mut rules = Vec::new();
    for proto in ["udp", "tcp"] {
        let internal = "ct original ip saddr . ct original proto-src";
        rules.push(format!(
            "oifname {WAN} meta l4proto {proto} update @mapped_{proto} {{ {proto} sport : {internal} }}"
        ));
        rules.push(format!("oifname {WAN} meta l4proto {proto} update @seen {{ {proto} sport . ip daddr }}"));
    }
    chain(&mut text, "learn", "filter hook postrouting priority 110", &rules);
    text
}

fn chain(text: &mut String, name: &str, hook: &str, rules: &[String]) {
    let _ = writeln!(text, "chain {name} {{\ntype {hook}; policy accept;");
    for rule in rules {
        let _ = writeln!(text, "{rule}");
    }
    text.push_str("}\n");
}

#[cfg(test)]
mod tests;
