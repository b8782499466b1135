//! The NAT report, through each kind of router, by real packets: one test per kind.
//!
//! A line is what stands there (`nat`, `open`, `firewalled`, `blocked`), mapping, filtering (UDP) and the delta of
//! ports. `NATPIPE_RUNS` says how often each kind is asked, once if it is not set; docs/figures.md has the result of 20.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use natpipe::lab::{Host, Internet, Kind, Link, Setup};
use natpipe::nat::{Delta, Entry, Filtering, Finding, Kind as Type, Layers, Mapping, Prober, Proto, Report};
use natpipe::stun::Server;
use natpipe::{Family, Interface};

pub fn runs() -> usize {
    std::env::var("NATPIPE_RUNS").map_or(1, |runs| runs.parse().expect("NATPIPE_RUNS is a number"))
}

/// An internet with a STUN server of two addresses in each family.
pub struct World {
    pub internet: Internet,
    /// IPv4, IPv6.
    pub servers: [Server; 2],
    _host: Host,
    _runtime: tokio::runtime::Runtime,
}

impl World {
    pub fn new(link: Link, seed: u64) -> Self {
        let internet = Internet::with_link(link, seed).unwrap();
        let host = internet.host("stun").unwrap();
        host.add_addresses("eth0").unwrap();
        let runtime = host.runtime().unwrap();
        let of = |v4: bool| {
            let mut addrs = host.addresses().into_iter().filter(move |ip| ip.is_ipv4() == v4);
            (addrs.next().unwrap(), addrs.next().unwrap())
        };
        let servers = [of(true), of(false)].map(|(first, second)| {
            let limits = natpipe::stun::Limits::none();
            host.run(|| {
                let _inside = runtime.enter();
                Server::listen((first, 3478).into()).listen2((second, 3479).into()).limits(limits).start().unwrap()
            })
        });
        Self { internet, servers, _host: host, _runtime: runtime }
    }

    /// What a host behind this router learns, in its family.
    pub fn report(&self, setup: Setup, proto: Option<Proto>) -> Report {
        let host = self.internet.behind(setup).unwrap();
        self.report_of(&host, proto)
    }

    pub fn report_of(&self, host: &Host, proto: Option<Proto>) -> Report {
        let family = if host.v4().is_some() { Family::V4 } else { Family::V6 };
        let server = &self.servers[usize::from(family == Family::V6)];
        host.block_on(async {
            let prober = Prober::new(Interface::list().unwrap()).stun(server.addr()).family(family);
            proto.into_iter().fold(prober, Prober::proto).run().await.unwrap()
        })
        .unwrap()
    }
}

pub fn words(entry: &Entry) -> String {
    let mapping = match entry.mapping {
        Finding::Known(Mapping::EndpointIndependent) => "EIM",
        Finding::Known(Mapping::AddressDependent) => "ADM",
        Finding::Known(Mapping::AddressAndPortDependent) => "APDM",
        _ => "?",
    };
    let filtering = match (entry.proto, entry.filtering) {
        (Proto::Tcp, Finding::Untested(_)) => "",
        (_, Finding::Known(Filtering::EndpointIndependent)) => " EIF",
        (_, Finding::Known(Filtering::AddressDependent)) => " ADF",
        (_, Finding::Known(Filtering::AddressAndPortDependent)) => " APDF",
        _ => " ?",
    };
    match (entry.answered, entry.translated) {
        (0, _) => "blocked".into(),
        (_, Finding::Known(true)) => {
            let delta = entry.delta.known().map_or("?".into(), |delta| delta.to_string());
            format!("nat {mapping}{filtering} {delta}")
        }
        (_, Finding::Known(false)) if entry.proto == Proto::Tcp => "untranslated".into(),
        (_, Finding::Known(false)) if filtering == " EIF" => "open".into(),
        (_, Finding::Known(false)) => format!("firewalled{filtering}"),
        _ => "?".into(),
    }
}

#[track_caller]
fn shows(setup: impl Into<Setup>, udp: &str, tcp: &str) {
    let (setup, world) = (setup.into(), World::new(Link::steady(Duration::ZERO), 1));
    for run in 0..runs() {
        let report = world.report(setup, None);
        let said: Vec<String> = report.entries.iter().map(words).collect();
        assert_eq!(said, [udp, tcp], "run {run}: {report:#?}");
    }
}

macro_rules! kinds {
    ($($name:ident: $kind:ident, $udp:literal, $tcp:literal;)*) => {$(
        #[test]
        fn $name() {
            shows(Kind::$kind, $udp, $tcp);
        }
    )*};
}

kinds! {
    open: Open, "open", "untranslated";
    firewall: Firewall, "firewalled APDF", "untranslated";
    home: Home, "nat EIM APDF equal", "nat EIM equal";
    linux: Linux, "nat EIM APDF equal", "nat EIM equal";
    rejecting: Rejecting, "nat EIM APDF equal", "nat EIM equal";
    non_preserving: NonPreserving, "nat EIM APDF random", "nat EIM random";
    full_cone: FullCone, "nat EIM EIF equal", "nat EIM equal";
    restricted: Restricted, "nat EIM ADF equal", "nat EIM equal";
    symmetric_random: SymmetricRandom, "nat APDM APDF random", "nat APDM random";
    symmetric_sequential: SymmetricSequential, "nat APDM APDF independent(+1)", "nat APDM independent(+1)";
    symmetric_descending: SymmetricDescending, "nat APDM APDF independent(-1)", "nat APDM independent(-1)";
    address_dependent: AddressDependent, "nat ADM APDF random", "nat ADM random";
    symmetric_eif: SymmetricEif, "nat APDM EIF random", "nat APDM random";
    symmetric_adf: SymmetricAdf, "nat APDM ADF random", "nat APDM random";
    port_block: PortBlock, "nat EIM APDF random", "nat EIM random";
    port_block_symmetric: PortBlockSymmetric, "nat APDM APDF random", "nat APDM random";
    cgnat: Cgnat, "nat EIM EIF equal", "nat EIM equal";
    double: Double, "nat EIM APDF equal", "nat EIM equal";
    double_symmetric: DoubleSymmetric, "nat APDM APDF random", "nat APDM random";
    one_to_one: OneToOne, "nat EIM EIF equal", "nat EIM equal";
    one_to_one_firewalled: OneToOneFirewalled, "nat EIM APDF equal", "nat EIM equal";
    hairpin: Hairpin, "nat EIM EIF equal", "nat EIM equal";
    hairpin_internal: HairpinInternal, "nat EIM EIF equal", "nat EIM equal";
    tcp_hostile: TcpHostile, "nat EIM APDF equal", "nat EIM equal";
    tcp_resetting: TcpResetting, "nat EIM APDF equal", "nat EIM equal";
    udp_blocked: UdpBlocked, "blocked", "nat EIM equal";
    short_lived: ShortLived, "nat EIM APDF equal", "nat EIM equal";
    v6_firewall: V6Firewall, "firewalled APDF", "untranslated";
    nat64: Nat64, "firewalled APDF", "untranslated";
    dual_stack: DualStack, "nat EIM APDF equal", "nat EIM equal";
    patchbay_open: PatchbayOpen, "nat EIM EIF equal", "nat EIM equal";
    patchbay_moderate: PatchbayModerate, "nat EIM APDF equal", "nat EIM equal";
    patchbay_strict: PatchbayStrict, "nat APDM APDF random", "nat APDM random";
}

/// What is to be said of one of seed 002's 35 configurations.
fn promised(kind: Type, delta: Delta) -> [String; 2] {
    let (udp, tcp) = match kind {
        Type::Open => return ["open".into(), "untranslated".into()],
        Type::SymmetricFirewall => return ["firewalled APDF".into(), "untranslated".into()],
        Type::Blocked => return ["blocked".into(), "untranslated".into()],
        Type::FullCone => ("EIM EIF", "EIM"),
        Type::Restricted => ("EIM ADF", "EIM"),
        Type::PortRestricted => ("EIM APDF", "EIM"),
        Type::Symmetric => ("APDM APDF", "APDM"),
    };
    // A symmetric NAT that keeps ports does so for the first destination only, and counts or draws for others.
    [format!("nat {udp} {delta}"), format!("nat {tcp} {delta}")]
}

/// All of them beside each other, a few at a time.
#[test]
fn all_35_types_by_deltas() {
    let models: Vec<Kind> = Kind::models().collect();
    let wrong: Vec<String> = thread::scope(|scope| {
        let parts: Vec<_> = models
            .chunks(6)
            .map(|part| scope.spawn(move || part.iter().flat_map(|m| misjudged(*m)).collect()))
            .collect();
        parts.into_iter().flat_map(|part| -> Vec<String> { part.join().unwrap() }).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn misjudged(model: Kind) -> Vec<String> {
    let Kind::Model(kind, delta) = model else { unreachable!() };
    let world = World::new(Link::steady(Duration::ZERO), 1);
    let mut wrong = Vec::new();
    for run in 0..runs() {
        let said: Vec<String> = world.report(model.into(), None).entries.iter().map(words).collect();
        if said != promised(kind, delta) {
            wrong.push(format!("{model}, run {run}: {said:?}"));
        }
    }
    wrong
}

/// Retransmission and servers asked in parallel: a lost packet changes no verdict.
#[test]
fn with_two_percent_of_the_packets_lost_every_kind_is_still_told_right() {
    let cases = [
        (Kind::Open, "open"),
        (Kind::Firewall, "firewalled APDF"),
        (Kind::Home, "nat EIM APDF equal"),
        (Kind::Linux, "nat EIM APDF equal"),
        (Kind::NonPreserving, "nat EIM APDF random"),
        (Kind::FullCone, "nat EIM EIF equal"),
        (Kind::Restricted, "nat EIM ADF equal"),
        (Kind::SymmetricRandom, "nat APDM APDF random"),
        (Kind::SymmetricSequential, "nat APDM APDF independent(+1)"),
        (Kind::AddressDependent, "nat ADM APDF random"),
        (Kind::SymmetricEif, "nat APDM EIF random"),
        (Kind::SymmetricAdf, "nat APDM ADF random"),
        (Kind::PortBlockSymmetric, "nat APDM APDF random"),
        (Kind::Double, "nat EIM APDF equal"),
        (Kind::UdpBlocked, "blocked"),
        (Kind::Rejecting, "nat EIM APDF equal"),
        (Kind::SymmetricDescending, "nat APDM APDF independent(-1)"),
        (Kind::PortBlock, "nat EIM APDF random"),
        (Kind::Cgnat, "nat EIM EIF equal"),
        (Kind::DoubleSymmetric, "nat APDM APDF random"),
        (Kind::OneToOne, "nat EIM EIF equal"),
        (Kind::OneToOneFirewalled, "nat EIM APDF equal"),
        (Kind::Hairpin, "nat EIM EIF equal"),
        (Kind::HairpinInternal, "nat EIM EIF equal"),
        (Kind::TcpHostile, "nat EIM APDF equal"),
        (Kind::TcpResetting, "nat EIM APDF equal"),
        (Kind::ShortLived, "nat EIM APDF equal"),
        (Kind::V6Firewall, "firewalled APDF"),
        (Kind::DualStack, "nat EIM APDF equal"),
        (Kind::PatchbayOpen, "nat EIM EIF equal"),
        (Kind::PatchbayModerate, "nat EIM APDF equal"),
        (Kind::PatchbayStrict, "nat APDM APDF random"),
    ];
    let wrong: Vec<String> = thread::scope(|scope| {
        let parts: Vec<_> = cases.chunks(5).map(|part| scope.spawn(move || lossy(part))).collect();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is lost may be what would have told: a report that is wrong is made twice more, and two of the three have to be right.
fn lossy(cases: &[(Kind, &str)]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (kind, expected) in cases {
        for run in 0..runs() {
            let told = |seed: u64| {
                let link = Link { loss: 0.02, ..Link::steady(Duration::from_millis(5)) };
                words(&World::new(link, seed).report((*kind).into(), Some(Proto::Udp)).entries[0])
            };
            let said = told(run as u64 + 1);
            if said != *expected && (1001..1003).any(|seed| told(run as u64 + seed) != *expected) {
                wrong.push(format!("{kind}, run {run}: {said} instead of {expected}"));
            }
        }
    }
    wrong
}

#[test]
fn with_two_percent_of_the_packets_lost_all_35_types_by_deltas_are_still_told_right() {
    let models: Vec<(Kind, String)> = Kind::models()
        .map(|model| {
            let Kind::Model(kind, delta) = model else { unreachable!() };
            let [udp, _] = promised(kind, delta);
            (model, udp)
        })
        .collect();
    let wrong: Vec<String> = thread::scope(|scope| {
        let cases: Vec<(Kind, &str)> = models.iter().map(|(model, udp)| (*model, udp.as_str())).collect();
        let parts: Vec<Vec<(Kind, &str)>> = cases.chunks(6).map(<[_]>::to_vec).collect();
        let parts: Vec<_> = parts.into_iter().map(|part| scope.spawn(move || lossy(&part))).collect();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn carriers_and_double_nats_leave_their_marks() {
    let world = World::new(Link::steady(Duration::ZERO), 1);
    let layers = |kind: Kind| world.report(kind.into(), Some(Proto::Udp)).entries[0].layers;
    assert_eq!(layers(Kind::Cgnat), Finding::Known(Layers::Carrier));
    assert!(matches!(layers(Kind::Open), Finding::Known(Layers::None)));
}

#[test]
fn hairpinning_is_seen() {
    use natpipe::nat::Hairpin;
    let world = World::new(Link::steady(Duration::ZERO), 1);
    let hairpin = |kind: Kind| world.report(kind.into(), Some(Proto::Udp)).entries[0].hairpin;
    assert_eq!(hairpin(Kind::Home), Finding::Known(Hairpin::None));
    assert_eq!(hairpin(Kind::Hairpin), Finding::Known(Hairpin::External));
    assert_eq!(hairpin(Kind::HairpinInternal), Finding::Known(Hairpin::Internal));
}

#[test]
fn the_way_through_one_home_is_one_nat_and_as_wide_as_its_narrowest_link() {
    let world = World::new(Link::steady(Duration::ZERO), 1);
    let router = world.internet.router("home", Kind::Home).unwrap();
    let host = router.host("host").unwrap();
    let narrowed = router.run(|| Command::new("ip").args(["link", "set", "wan", "mtu", "1400"]).status().unwrap());
    assert!(narrowed.success());
    let entry = world.report_of(&host, Some(Proto::Udp)).entries.remove(0);
    // The longest of the sizes tried that passes.
    assert_eq!(entry.mtu, Some(1380));
    assert_eq!(entry.layers, Finding::Known(Layers::One));
}

#[test]
fn the_lifetime_of_a_binding_is_measured() {
    let world = World::new(Link::steady(Duration::ZERO), 1);
    let secs = Duration::from_secs;
    let lifetime = |kind: Kind| {
        let host = world.internet.behind(kind).unwrap();
        let prober = || Prober::new(Interface::list().unwrap()).stun(world.servers[0].addr()).family(Family::V4);
        let report = host.block_on(async { prober().proto(Proto::Udp).ages(&[secs(1), secs(4)]).run().await.unwrap() });
        report.unwrap().entries[0].lifetime
    };
    // An answered binding of the short-lived one is forgotten after two seconds.
    assert_eq!(lifetime(Kind::ShortLived), Some(secs(1)));
    assert_eq!(lifetime(Kind::Home), Some(secs(4)));
}

/// At 50 ms of round trip, both protocols: what it took is printed, and kept in docs/figures.md. No limit is
/// asserted here but one that only a mistake in the design could miss.
#[test]
fn a_full_report_is_quick() {
    let world = World::new(Link::steady(Duration::from_millis(25)), 1);
    let host = world.internet.behind(Kind::Home).unwrap();
    let begun = Instant::now();
    let report = world.report_of(&host, None);
    println!("a full report at 50 ms took {:?}", begun.elapsed());
    assert_eq!(report.entries.len(), 2);
}

/// What the README shows of `natpipe nat` is what it says behind a home router, but for the ports that it happened to see.
#[test]
fn the_command_says_what_the_readme_shows() {
    let world = World::new(Link::steady(Duration::ZERO), 1);
    let host = world.internet.behind(Kind::Home).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_natpipe"));
    let output = host.output(command.args(["nat", "--stun", &world.servers[0].addr().to_string()])).unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let readme = include_str!("../../README.md");
    let shown = readme.split("```text\neth0").nth(1).unwrap().split("```").next().unwrap();
    let without_ports = |line: &str| line.split(", seen 1").next().unwrap_or_default().to_owned();
    for line in format!("eth0{shown}").lines().filter(|line| *line != "…") {
        let wanted = without_ports(line);
        assert!(said.lines().any(|line| without_ports(line) == wanted), "`{wanted}` is not in\n{said}");
    }
}
