//! `natpipe nat`.

use anyhow::{Result, bail};
use natpipe::nat::pairs::{Method, Works, ways};
use natpipe::nat::{
    DEFAULT_SERVERS, Delta, Entry, Filtering, Finding, Hairpin, Layers, Mapping, Prober, Progress, Proto, Report, Why,
};
use natpipe::stun::ServerName;
use natpipe::{Family, Interface};
use serde::Serialize;
use serde_json::json;

use super::gateways;
use crate::args::NatArgs;
use crate::output::{self, say};
use crate::progress::spinner;

/// One entry for programs: what was found, and the names that sum it up.
#[derive(Serialize)]
struct Row<'a> {
    state: &'static str,
    /// RFC 3489's name.
    kind: Option<String>,
    /// Seed 002's name for the assignment of ports.
    delta_name: Option<String>,
    #[serde(flatten)]
    entry: &'a Entry,
}

#[derive(Serialize)]
struct Answer<'a> {
    entries: Vec<Row<'a>>,
    with_peers: Vec<Outlook>,
    gateways: Vec<serde_json::Value>,
    /// The report in the few bytes that go into a ticket, in hexadecimal.
    compact: String,
}

/// What will work with one kind of peer.
#[derive(Serialize)]
struct Outlook {
    peer: &'static str,
    best: String,
    why: String,
    others: Vec<String>,
}

pub async fn run(args: NatArgs, json: bool) -> Result<()> {
    let (report, offered) = tokio::join!(measure(&args, json), gateways::asked(args.interface.as_deref()));
    let (report, offered) = (report?, offered?);
    let outlooks: Vec<Outlook> = peers().into_iter().map(|(name, peer)| outlook(name, &report, &peer)).collect();
    if json {
        let entries = report.entries.iter().map(row).collect();
        let compact = report.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        let gateways = offered.iter().map(gateways::value).collect();
        output::json(&Answer { entries, with_peers: outlooks, gateways, compact })?;
    } else {
        report.entries.iter().try_for_each(print)?;
        offered.iter().try_for_each(gateways::print)?;
        if !report.is_offline() {
            print_outlooks(&outlooks)?;
        }
    }
    if report.is_offline() {
        bail!("no STUN server answered over anything: is this machine online? Other servers can be named with --stun");
    }
    Ok(())
}

async fn measure(args: &NatArgs, json: bool) -> Result<Report> {
    let interfaces = match &args.interface {
        Some(name) => vec![Interface::by_name(name)?],
        None => Interface::list()?,
    };
    let mut servers = args.stun.clone();
    if servers.is_empty() {
        servers.extend(DEFAULT_SERVERS.iter().filter_map(|server| server.parse::<ServerName>().ok()));
    }
    let mut prober = servers.into_iter().fold(Prober::new(interfaces), Prober::stun);
    if args.udp_only {
        prober = prober.proto(Proto::Udp);
    }
    if args.lifetime {
        prober = prober.lifetime();
    }
    let bar = spinner(json);
    let shown = bar.clone();
    let result = prober.on_progress(move |progress| tell(&progress, json, &shown)).run().await;
    bar.finish_and_clear();
    Ok(result?)
}

fn tell(progress: &Progress, json: bool, bar: &indicatif::ProgressBar) {
    let (sentence, event) = match progress {
        Progress::Testing { interface, family, proto } => (
            format!("testing {interface}, {family}, {proto} …"),
            json!({"event": "testing", "interface": interface, "family": family, "proto": proto}),
        ),
        Progress::Ageing { interface, at_most } => (
            format!("{interface}: leaving bindings alone for up to {} s …", at_most.as_secs()),
            json!({"event": "ageing", "interface": interface, "at_most_s": at_most.as_secs()}),
        ),
        Progress::Done(entry) => (
            format!("{}, {}, {}: {}", entry.interface, entry.family, entry.proto, summary(entry)),
            json!({"event": "done", "interface": entry.interface, "family": entry.family, "proto": entry.proto}),
        ),
        _ => return,
    };
    if bar.is_hidden() {
        say(json, sentence, &event);
    } else {
        bar.set_message(sentence);
    }
}

fn row(entry: &Entry) -> Row<'_> {
    Row {
        state: state(entry),
        kind: entry.kind().map(|kind| kind.to_string()),
        delta_name: entry.delta.known().map(|delta| delta.to_string()),
        entry,
    }
}

fn state(entry: &Entry) -> &'static str {
    match (entry.answered, entry.translated, entry.filtering) {
        (0, ..) if entry.asked > 0 => "blocked",
        (_, Finding::Known(true), _) => "nat",
        (_, Finding::Known(false), Finding::Known(Filtering::EndpointIndependent)) => "open",
        (_, Finding::Known(false), Finding::Known(_)) => "firewalled",
        (_, Finding::Known(false), _) => "untranslated",
        _ => "unknown",
    }
}

fn summary(entry: &Entry) -> String {
    let seen = entry.external.map(|ip| format!(", seen as {ip}")).unwrap_or_default();
    match state(entry) {
        "blocked" => "blocked: no server answered".into(),
        "nat" => format!("behind NAT{seen}"),
        "open" => format!("open to anyone{seen}"),
        "firewalled" => format!("firewalled, addresses not translated{seen}"),
        "untranslated" => format!("addresses not translated{seen}"),
        _ if entry.asked == 0 => "not tested: no server has an address of this family".into(),
        _ => "nothing learnt".into(),
    }
}

fn print(entry: &Entry) -> Result<()> {
    output::line(format_args!("{}  {} {}  {}", entry.interface, entry.family, entry.proto, summary(entry)))?;
    if entry.answered == 0 {
        return Ok(());
    }
    let kind = entry.kind().map(|kind| format!("   (RFC 3489: {kind})")).unwrap_or_default();
    field("mapping", format!("{}{kind}", found(entry.mapping, |mapping| mapping.to_string())))?;
    field("filtering", found(entry.filtering, |filtering| filtering.to_string()))?;
    let span = entry.ports.map(|ports| format!(", seen {} to {}", ports.low, ports.high)).unwrap_or_default();
    field("ports", format!("{}{span}", found(entry.delta, ports_in_words)))?;
    if let Some(foreign) = entry.foreign.filter(|foreign| foreign.mappings > 0) {
        field("others", format!("{} mappings in {:?}", foreign.mappings, foreign.window))?;
    }
    field("hairpin", found(entry.hairpin, hairpin_in_words))?;
    field("NATs", found(entry.layers, layers_in_words))?;
    if let Some(mtu) = entry.mtu {
        field("MTU", format!("{mtu} bytes to the server"))?;
    }
    match entry.lifetime {
        Some(lifetime) => field("lifetime", format!("an idle binding lives {} s at least", lifetime.as_secs()))?,
        None if entry.proto == Proto::Udp => field("lifetime", "not measured (--lifetime does, for three minutes)")?,
        None => {}
    }
    field("servers", format!("{} of {} answered", entry.answered, entry.asked))
}

pub fn field(name: &str, value: impl std::fmt::Display) -> Result<()> {
    output::line(format_args!("    {name:<10} {value}"))
}

fn found<T: Copy>(finding: Finding<T>, words: impl Fn(T) -> String) -> String {
    match finding {
        Finding::Known(value) => words(value),
        Finding::AtLeast(value) => format!("{}, or harder", words(value)),
        Finding::Untested(why) => format!("not tested: {}", reason(why)),
    }
}

fn reason(why: Why) -> &'static str {
    match why {
        Why::NotAsked => "not asked for",
        Why::NoAnswer => "no server answered",
        Why::OneAddress => "it takes a server with two addresses (--stun)",
        Why::NotHonoured => "the server does not do it",
        Why::NotOverTcp => "STUN has no such test over TCP",
        Why::NotTranslated => "addresses are not translated",
        Why::MappingDepends => "the mapping depends on the destination",
        Why::TooFewSamples => "too few answers",
        Why::NoRouterAddress => "the router has not told its own address",
    }
}

fn ports_in_words(delta: Delta) -> String {
    let words = match delta {
        Delta::Equal => "kept as they are",
        Delta::Preserving(_) => "at a fixed distance from the local ones",
        Delta::Independent(_) => "counted on, whatever the local port",
        Delta::Dependent(_) => "counted on with the local port",
        Delta::Random => "random",
    };
    format!("{words} ({delta})")
}

fn hairpin_in_words(hairpin: Hairpin) -> String {
    match hairpin {
        Hairpin::None => "no: peers behind the same NAT need its inside".into(),
        Hairpin::External => "yes, with the external source address (RFC 4787 REQ-9)".into(),
        Hairpin::Internal => "yes, but from an internal address, which peers do not expect".into(),
    }
}

fn layers_in_words(layers: Layers) -> String {
    match layers {
        Layers::None => "none".into(),
        Layers::One => "one".into(),
        Layers::Double => "two or more in a row".into(),
        Layers::Carrier => "a carrier's (100.64.0.0/10)".into(),
    }
}

/// Peers as they are met, with the names that people know them by.
fn peers() -> [(&'static str, Report); 4] {
    use Filtering::{AddressAndPortDependent, EndpointIndependent as Anyone};
    use Mapping::{AddressAndPortDependent as Symmetric, EndpointIndependent as Cone};
    [
        ("a server on the open internet", peer(None, Anyone, Delta::Equal)),
        ("a peer behind a home router", peer(Some(Cone), AddressAndPortDependent, Delta::Equal)),
        ("… a symmetric NAT that counts ports", peer(Some(Symmetric), AddressAndPortDependent, Delta::Independent(1))),
        ("… a symmetric NAT with random ports", peer(Some(Symmetric), AddressAndPortDependent, Delta::Random)),
    ]
}

fn peer(mapping: Option<Mapping>, filtering: Filtering, delta: Delta) -> Report {
    let mut entries = Vec::new();
    for family in [Family::V4, Family::V6] {
        for proto in [Proto::Udp, Proto::Tcp] {
            entries.push(Entry {
                asked: 1,
                answered: 1,
                translated: Finding::Known(mapping.is_some()),
                mapping: mapping.map_or(Finding::Untested(Why::NotTranslated), Finding::Known),
                filtering: Finding::Known(filtering),
                delta: Finding::Known(delta),
                ..Entry::untested("peer", family, proto)
            });
        }
    }
    Report { entries }
}

fn outlook(peer: &'static str, report: &Report, other: &Report) -> Outlook {
    let all = ways(report, other);
    let works = |way: &&natpipe::nat::pairs::Way| way.works == Works::Yes;
    let best = all.iter().find(works).or_else(|| all.iter().find(|way| way.works == Works::Maybe));
    let only_relay = best.is_none_or(|way| way.method == Method::Relay);
    let named = |way: &natpipe::nat::pairs::Way| match way.family {
        Some(family) => format!("{} over {family}", way.method),
        None => way.method.to_string(),
    };
    let others = all.iter().filter(works).filter(|way| best.is_none_or(|best| best != *way));
    Outlook {
        peer,
        best: match best {
            Some(_) if only_relay => "only a relay".into(),
            Some(way) if way.works == Works::Maybe => format!("perhaps {}", named(way)),
            Some(way) => named(way),
            None => "nothing".into(),
        },
        why: best.map(|way| way.reason.to_string()).unwrap_or_default(),
        others: others.map(named).collect(),
    }
}

fn print_outlooks(outlooks: &[Outlook]) -> Result<()> {
    output::line("what will work")?;
    for outlook in outlooks {
        output::line(format_args!("    {:<36} {}: {}", outlook.peer, outlook.best, outlook.why))?;
    }
    Ok(())
}
