//! Ports that a gateway opens: by miniupnpd in each protocol, and by gateways that lie, refuse, or are behind another NAT.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use natpipe::lab::{Host, Internet, Kind};
use natpipe::portmap::{Failure, Mapper, Proto, Protocol, State, is_useful, offers};
use natpipe::{Family, Interface, Route};

use super::gateway::{Liar, gateway_of, mappings, miniupnpd, miniupnpd_inside, opens_pinholes, run};

const LIMIT: Duration = Duration::from_secs(15);

/// The route of a host behind a router. To be called inside the host.
fn route() -> Route {
    Interface::default_for(Family::V4).unwrap().route(Family::V4).unwrap()
}

/// Whether somebody outside is let in, and hears what is said.
fn is_let_in(outside: &Host, to: SocketAddr, listener: &TcpListener) -> bool {
    let Ok(mut stream) = outside.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(1))) else { return false };
    let (mut inside, _) = listener.accept().unwrap();
    inside.write_all(b"come in").unwrap();
    drop(inside);
    let mut heard = String::new();
    stream.read_to_string(&mut heard).unwrap();
    heard == "come in"
}

/// A port is opened by this protocol alone, somebody outside is let in, and is not when it is over.
fn a_port_is_opened_by(protocol: Protocol, conf: &str) {
    let internet = Internet::new().unwrap();
    let router = internet.router("home", Kind::Home).unwrap();
    let daemon = miniupnpd(&router, conf);
    let (host, outside) = (router.host("host").unwrap(), internet.host("outside").unwrap());
    let listener = host.run(|| TcpListener::bind((host.v4().unwrap(), 0))).unwrap();
    let port = listener.local_addr().unwrap().port();
    let runtime = host.runtime().unwrap();
    let mapping = host.run(|| {
        let _inside = runtime.enter();
        Mapper::new(&route()).only(&[protocol]).map(Proto::Tcp, port).unwrap()
    });
    let mapped = runtime.block_on(mapping.settled(LIMIT));
    let mapped = mapped.unwrap_or_else(|| panic!("{:?}\n{}", mapping.state().borrow(), daemon.log()));
    assert_eq!(mapped.protocol, protocol);
    assert_eq!(Some(mapped.external.ip()), daemon.external);
    assert_eq!(mapped.gateway, Some(gateway_of(&router).into()));
    assert!(is_useful(mapped.external, mapped.inside, &[]));
    assert!(is_let_in(&outside, mapped.external, &listener), "{}", mappings(&router));
    runtime.block_on(mapping.close());
    assert!(!mappings(&router).contains("dnat"), "{}", mappings(&router));
    assert!(!is_let_in(&outside, mapped.external, &listener), "the port is closed again");
}

#[test]
fn a_port_is_opened_by_pcp_and_closed_again() {
    a_port_is_opened_by(Protocol::Pcp, "enable_natpmp=yes\nenable_upnp=no");
}

#[test]
fn a_port_is_opened_by_nat_pmp_and_closed_again() {
    a_port_is_opened_by(Protocol::NatPmp, "enable_natpmp=yes\nenable_upnp=no");
}

#[test]
fn a_port_is_opened_by_upnp_and_closed_again() {
    a_port_is_opened_by(Protocol::Upnp, "enable_natpmp=no\nenable_upnp=yes");
}

/// Maps a port of a host behind `router` and waits until the gateway has answered.
fn asked(host: &Host, protocols: &[Protocol], port: u16) -> (tokio::runtime::Runtime, natpipe::portmap::Mapping) {
    let runtime = host.runtime().unwrap();
    let mapping = host.run(|| {
        let _inside = runtime.enter();
        Mapper::new(&route()).only(protocols).map(Proto::Tcp, port).unwrap()
    });
    runtime.block_on(mapping.settled(LIMIT));
    (runtime, mapping)
}

/// Why a mapping came to nothing, by protocol.
fn failures(mapping: &natpipe::portmap::Mapping) -> Vec<(Protocol, Failure)> {
    match &*mapping.state().borrow() {
        State::Failed(error) => error.failures.clone(),
        state => panic!("{state:?}"),
    }
}

const ALL: &[Protocol] = &[Protocol::Pcp, Protocol::NatPmp, Protocol::Upnp];

#[test]
fn a_port_for_datagrams_is_opened_and_of_all_protocols_one_is_used() {
    let internet = Internet::new().unwrap();
    let router = internet.router("home", Kind::SymmetricRandom).unwrap();
    let daemon = miniupnpd(&router, "enable_natpmp=yes\nenable_upnp=yes");
    let (host, outside) = (router.host("host").unwrap(), internet.host("outside").unwrap());
    let inside = host.run(|| UdpSocket::bind((host.v4().unwrap(), 0))).unwrap();
    let runtime = host.runtime().unwrap();
    let mapping = host.run(|| {
        let _inside = runtime.enter();
        Mapper::new(&route()).map(Proto::Udp, inside.local_addr().unwrap().port()).unwrap()
    });
    let mapped = runtime.block_on(mapping.settled(LIMIT)).unwrap();
    assert_eq!(Some(mapped.external.ip()), daemon.external);
    assert_eq!(mappings(&router).matches("dnat").count(), 1, "{}", mappings(&router));
    let stranger = outside.run(|| UdpSocket::bind((outside.v4().unwrap(), 0))).unwrap();
    stranger.send_to(b"hello", mapped.external).unwrap();
    inside.set_read_timeout(Some(LIMIT)).unwrap();
    let (_, from) = inside.recv_from(&mut [0; 16]).unwrap();
    assert_eq!(from, stranger.local_addr().unwrap(), "from whom nothing was ever heard");
    runtime.block_on(mapping.close());
}

#[test]
fn what_a_gateway_offers_is_told_without_opening_anything() {
    let internet = Internet::new().unwrap();
    let router = internet.router("home", Kind::Home).unwrap();
    let daemon = miniupnpd(&router, "enable_natpmp=yes\nenable_upnp=yes");
    let host = router.host("host").unwrap();
    let offered = host.block_on(async { offers(&route()).await }).unwrap();
    assert_eq!(offered.gateway, Some(gateway_of(&router).into()));
    let external = |protocol: Protocol| {
        let (_, offer) = offered.by.iter().find(|(by, _)| *by == protocol).unwrap();
        offer.as_ref().unwrap_or_else(|failure| panic!("{protocol}: {failure}")).external
    };
    assert_eq!(external(Protocol::Pcp), None, "PCP tells it with a mapping only");
    assert_eq!(external(Protocol::NatPmp), daemon.external);
    assert_eq!(external(Protocol::Upnp), daemon.external);
    assert!(!mappings(&router).contains("dnat"));
}

#[test]
fn a_router_that_opens_nothing_is_said_to() {
    let internet = Internet::new().unwrap();
    let host = internet.behind(Kind::Home).unwrap();
    let (_runtime, mapping) = asked(&host, ALL, 4000);
    let failures = failures(&mapping);
    assert_eq!(failures.iter().map(|(protocol, _)| *protocol).collect::<Vec<_>>(), ALL);
    let closed = Failure::NotThere(std::io::ErrorKind::ConnectionRefused);
    assert_eq!(failures[0].1, closed, "its port is closed");
    assert!(matches!(failures[2].1, Failure::NoAnswer | Failure::NotThere(_)), "{failures:?}");
}

#[test]
fn a_gateway_behind_another_nat_opens_nothing_that_is_told_to_anybody() {
    let internet = Internet::new().unwrap();
    let carrier = internet.router("carrier", Kind::Cgnat).unwrap();
    let router = carrier.router("home", Kind::Home).unwrap();
    // It knows that its outside is private, and says so.
    let daemon = miniupnpd_inside(&router, "enable_natpmp=yes\nenable_upnp=yes");
    let host = router.host("host").unwrap();
    let (_runtime, mapping) = asked(&host, ALL, 4000);
    match &*mapping.state().borrow() {
        State::Failed(error) => assert_eq!(error.failures.len(), 3, "{error}"),
        State::Mapped(mapped) => {
            assert!(!is_useful(mapped.external, mapped.inside, &[carrier.outside()[0]]), "{mapped:?}");
        }
        state => panic!("{state:?}\n{}", daemon.log()),
    }
}

#[test]
fn a_gateway_that_allows_us_nothing_refuses() {
    let internet = Internet::new().unwrap();
    let router = internet.router("home", Kind::Home).unwrap();
    let _daemon = miniupnpd(&router, "enable_natpmp=yes\nenable_upnp=yes\ndeny 0-65535 0.0.0.0/0 0-65535");
    let host = router.host("host").unwrap();
    // Asked by UPnP it says so at once; over PCP and NAT-PMP it tries all of its ports first, for longer than anybody waits.
    for protocol in [Protocol::Upnp, Protocol::NatPmp, Protocol::Pcp] {
        let (_runtime, mapping) = asked(&host, &[protocol], 4000);
        let failure = failures(&mapping).remove(0).1;
        let searching = protocol != Protocol::Upnp && failure == Failure::NoAnswer;
        assert!(searching || matches!(failure, Failure::Refused { .. }), "{protocol}: {failure}");
    }
    assert!(!mappings(&router).contains("dnat"));
}

#[test]
fn refusals_are_told_with_their_reason() {
    let internet = Internet::new().unwrap();
    let router = internet.router("home", Kind::Home).unwrap();
    let _liar = Liar::pcp(&router, |request| match request[0] {
        2 if request[1] == 0 => vec![granted(request, [0; 4], 0, 0)],
        2 => {
            let mut answer = granted(request, [0; 4], 0, 1800);
            answer[3] = 2;
            vec![answer]
        }
        _ => vec![vec![0, request[1] | 0x80, 0, 2, 0, 0, 0, 9, 0, 0, 0, 0]],
    });
    let host = router.host("host").unwrap();
    let (_runtime, mapping) = asked(&host, &[Protocol::Pcp, Protocol::NatPmp], 4000);
    let said: Vec<String> =
        failures(&mapping).iter().map(|(protocol, failure)| format!("{protocol}: {failure}")).collect();
    let switched_off = "NAT-PMP: the gateway refused: not allowed, most likely switched off (2)";
    assert_eq!(said, ["PCP: the gateway refused: not allowed (2)", switched_off]);
}

#[test]
fn two_hosts_that_want_one_port_get_two() {
    for protocol in ALL {
        let internet = Internet::new().unwrap();
        let router = internet.router("home", Kind::Home).unwrap();
        let daemon = miniupnpd(&router, "enable_natpmp=yes\nenable_upnp=yes");
        let hosts = ["one", "two"].map(|name| router.host(name).unwrap());
        let asked = hosts.each_ref().map(|host| asked(host, &[*protocol], 4000));
        let [first, second] = asked.each_ref().map(|(_, mapping)| {
            mapping.external().unwrap_or_else(|| panic!("{protocol}: {:?}\n{}", mapping.state().borrow(), daemon.log()))
        });
        assert_eq!(first.port(), 4000, "{protocol}");
        assert_ne!(second.port(), 4000, "{protocol}");
        assert_eq!(mappings(&router).matches("dnat").count(), 2, "{protocol}: {}", mappings(&router));
    }
}

#[test]
fn a_gateway_that_was_restarted_is_asked_again_and_another_is_found() {
    let internet = Internet::new().unwrap();
    let (first, second) =
        (internet.router("first", Kind::Home).unwrap(), internet.router("second", Kind::Home).unwrap());
    let of_first = miniupnpd(&first, "enable_natpmp=yes\nenable_upnp=no");
    let of_second = miniupnpd(&second, "enable_natpmp=yes\nenable_upnp=no");
    let host = first.host("host").unwrap();
    let runtime = host.runtime().unwrap();
    let (mapper, mapping) = host.run(|| {
        let _inside = runtime.enter();
        let mapper = Mapper::new(&route());
        let mapping = mapper.map(Proto::Tcp, 4000).unwrap();
        (mapper, mapping)
    });
    let mapped = runtime.block_on(mapping.settled(LIMIT)).unwrap();
    assert_eq!(Some(mapped.external.ip()), of_first.external);
    // It forgets, comes back, and is told again when somebody looks.
    drop(of_first);
    first.nft("flush chain inet upnp mapped").unwrap();
    assert!(!mappings(&first).contains("dnat"));
    let _of_first = run(&first, Some(mapped.external.ip()), "enable_natpmp=yes\nenable_upnp=no");
    mapper.look_again();
    until(|| mappings(&first).contains("dnat"));
    // The same interface, plugged in elsewhere.
    host.detach("eth0").unwrap();
    host.attach(&second).unwrap();
    let gateway = gateway_of(&second);
    for words in [
        "link set eth1 down",
        "link set eth1 name eth0",
        "link set eth0 up",
        &format!("route add default via {gateway}"),
    ] {
        let output = host.output(Command::new("ip").args(words.split(' '))).unwrap();
        assert!(output.status.success(), "{words}: {output:?}");
    }
    mapper.look_again();
    until(|| mapping.external().map(|external| external.ip()) == of_second.external);
    assert_eq!(mapping.mapped().unwrap().gateway, Some(gateway_of(&second).into()));
    runtime.block_on(mapping.close());
    assert!(!mappings(&second).contains("dnat"));
}

/// A pinhole in the IPv6 firewall, by this protocol alone.
fn a_pinhole_is_opened_by(protocol: Protocol) {
    let internet = Internet::new().unwrap();
    let router = internet.router("dual", Kind::DualStack).unwrap();
    let daemon = miniupnpd(&router, "enable_natpmp=yes\nenable_upnp=yes\next_ifname6=wan\nipv6_disable=no");
    opens_pinholes(&router);
    let (host, outside) = (router.host("host").unwrap(), internet.host("outside").unwrap());
    let listener = host.run(|| TcpListener::bind((host.v6().unwrap(), 0))).unwrap();
    let own = listener.local_addr().unwrap();
    assert!(!is_let_in(&outside, own, &listener), "the firewall is shut");
    let runtime = host.runtime().unwrap();
    let mapping = host.run(|| {
        let _inside = runtime.enter();
        let route = Interface::default_for(Family::V6).unwrap().route(Family::V6).unwrap();
        Mapper::new(&route).only(&[protocol]).map(Proto::Tcp, own.port()).unwrap()
    });
    let mapped = runtime.block_on(mapping.settled(LIMIT));
    let mapped = mapped.unwrap_or_else(|| panic!("{:?}\n{}", mapping.state().borrow(), daemon.log()));
    assert_eq!((mapped.protocol, mapped.external), (protocol, own), "a pinhole changes no address");
    assert!(is_let_in(&outside, own, &listener));
    runtime.block_on(mapping.close());
    assert!(!is_let_in(&outside, own, &listener), "the firewall is shut again");
}

#[test]
fn a_pinhole_is_opened_by_pcp_and_closed_again() {
    a_pinhole_is_opened_by(Protocol::Pcp);
}

#[test]
fn a_pinhole_is_opened_by_upnp_and_closed_again() {
    a_pinhole_is_opened_by(Protocol::Upnp);
}

fn until(mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is() {
        assert!(Instant::now() < deadline, "it does not come to be");
        thread::sleep(Duration::from_millis(20));
    }
}

// ---- gateways that say what they like

/// The answer of a gateway that does as it is asked, over PCP.
fn granted(request: &[u8], external: [u8; 4], port: u16, lifetime: u32) -> Vec<u8> {
    let mut answer = request.to_vec();
    answer.resize(60, 0);
    answer[1] |= 0x80;
    answer[2..4].fill(0);
    answer[4..8].copy_from_slice(&lifetime.to_be_bytes());
    answer[8..24].fill(0);
    answer[8..12].copy_from_slice(&1000_u32.to_be_bytes());
    answer[42..44].copy_from_slice(&port.to_be_bytes());
    answer[44..60].copy_from_slice(&std::net::Ipv4Addr::from(external).to_ipv6_mapped().octets());
    if request[1] == 0 {
        answer.truncate(24);
    }
    answer
}

/// What comes of a gateway's answers to PCP.
fn told_by(answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> (State, Liar) {
    let internet = Internet::new().unwrap();
    let router = internet.router("home", Kind::Home).unwrap();
    let liar = Liar::pcp(&router, answer);
    let host = router.host("host").unwrap();
    let (_runtime, mapping) = asked(&host, &[Protocol::Pcp], 4000);
    let state = mapping.state().borrow().clone();
    (state, liar)
}

type Answering = Box<dyn Fn(&[u8]) -> Vec<u8> + Send>;

#[test]
fn answers_that_can_not_be_right_are_not_believed() {
    let wrong: Vec<Answering> = vec![
        Box::new(|request| granted(request, [9, 9, 9, 9], 0, 3600)),
        Box::new(|request| granted(request, [0, 0, 0, 0], 5000, 3600)),
        Box::new(|request| granted(request, [9, 9, 9, 9], 5000, 0)),
    ];
    for answer in wrong {
        let (state, _) = told_by(move |request| vec![answer(request)]);
        let State::Failed(error) = state else { panic!("{state:?}") };
        assert!(matches!(error.failures[..], [(Protocol::Pcp, Failure::Nonsense(_))]), "{error}");
    }
}

#[test]
fn answers_to_somebody_else_and_noise_are_passed_over_until_the_right_one_comes() {
    let (state, _) = told_by(|request| {
        let mut foreign = granted(request, [6, 6, 6, 6], 666, 3600);
        if let Some(nonce) = foreign.get_mut(24) {
            *nonce ^= 1;
        }
        let mut other_port = granted(request, [6, 6, 6, 6], 666, 3600);
        if let Some(port) = other_port.get_mut(41) {
            *port ^= 1;
        }
        let cut = granted(request, [6, 6, 6, 6], 666, 3600)[..23].to_vec();
        let right = granted(request, [9, 9, 9, 9], 5000, 3600);
        match request[1] {
            0 => vec![vec![], vec![2], vec![0xFF; 1400], cut, right],
            _ => vec![foreign, other_port, cut, vec![0; 60], request.to_vec(), right],
        }
    });
    let State::Mapped(mapped) = state else { panic!("{state:?}") };
    assert_eq!(mapped.external, SocketAddr::from(([9, 9, 9, 9], 5000)));
}

#[test]
fn a_private_external_address_is_taken_down_and_told_to_nobody() {
    let (state, _) = told_by(|request| vec![granted(request, [10, 0, 0, 7], 5000, 3600)]);
    let State::Mapped(mapped) = state else { panic!("{state:?}") };
    assert!(!is_useful(mapped.external, mapped.inside, &["203.0.113.1".parse().unwrap()]));
}

#[test]
fn a_short_lease_is_renewed_with_the_same_nonce_and_the_same_port_is_asked_for() {
    let internet = Internet::new().unwrap();
    let router = internet.router("home", Kind::Home).unwrap();
    let liar = Liar::pcp(&router, |request| vec![granted(request, [9, 9, 9, 9], 5000, 8)]);
    let host = router.host("host").unwrap();
    let (runtime, mapping) = asked(&host, &[Protocol::Pcp], 4000);
    assert_eq!(mapping.mapped().unwrap().lifetime, Duration::from_secs(8));
    let maps =
        || -> Vec<Vec<u8>> { liar.asked.lock().unwrap().iter().filter(|asked| asked[1] == 1).cloned().collect() };
    until(|| maps().len() >= 2);
    let (first, second) = (&maps()[0], &maps()[1]);
    assert_eq!(first[24..36], second[24..36]);
    assert_eq!(second[42..44], 5000_u16.to_be_bytes(), "the port that it had");
    runtime.block_on(mapping.close());
    let last = maps().pop().unwrap();
    assert_eq!((&last[4..8], &last[24..36]), (&[0; 4][..], &first[24..36]), "taken back");
}

#[test]
fn a_gateway_that_announces_that_it_has_restarted_is_asked_again_at_once() {
    let internet = Internet::new().unwrap();
    let router = internet.router("home", Kind::Home).unwrap();
    let liar = Liar::pcp(&router, |request| vec![granted(request, [9, 9, 9, 9], 5000, 7200)]);
    let (host, other) = (router.host("host").unwrap(), router.host("other").unwrap());
    let (runtime, mapping) = asked(&host, &[Protocol::Pcp], 4000);
    let maps = || liar.asked.lock().unwrap().iter().filter(|asked| asked[1] == 1).count();
    assert_eq!(maps(), 1);
    let announce = |socket: &UdpSocket| {
        let socket = socket2::SockRef::from(socket);
        socket
            .send_to(&[0, 128, 0, 0, 0, 0, 0, 1, 9, 9, 9, 9], &SocketAddr::from(([224, 0, 0, 1], 5350)).into())
            .unwrap();
    };
    let speaker = |ip: IpAddr| {
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        let std::net::IpAddr::V4(ip) = ip else { panic!() };
        socket2::SockRef::from(&socket).set_multicast_if_v4(&ip).unwrap();
        socket
    };
    let stranger = other.run(|| speaker(other.v4().unwrap()));
    let gateway = router.run(|| speaker(gateway_of(&router).into()));
    let begun = Instant::now();
    until(|| {
        announce(&stranger);
        begun.elapsed() > Duration::from_secs(5)
    });
    assert_eq!(maps(), 1, "a stranger's word counts for nothing");
    announce(&gateway);
    until(|| maps() == 2);
    runtime.block_on(mapping.close());
}

/// An HTTP answer.
fn http(status: &str, more: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{more}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

const DESCRIPTION: &str = r#"<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device>
<deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><deviceList><device>
<deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType><deviceList><device>
<deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType><serviceList><service>
<serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>/control</controlURL>
<SCPDURL>/scpd</SCPDURL></service></serviceList></device></deviceList></device></deviceList></device></root>"#;

const SCHEMA: &str = r#"<?xml version="1.0"?><scpd xmlns="urn:schemas-upnp-org:service-1-0"><actionList>
<action><name>AddPortMapping</name><argumentList><argument><name>NewRemoteHost</name><direction>in</direction></argument>
<argument><name>NewExternalPort</name><direction>in</direction></argument></argumentList></action>
<action><name>DeletePortMapping</name><argumentList></argumentList></action></actionList></scpd>"#;

/// What comes of a gateway whose UPnP answers like this.
fn told_by_upnp(location: &str, answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> State {
    let internet = Internet::new().unwrap();
    let router = internet.router("home", Kind::Home).unwrap();
    Liar::upnp(&router, location, answer);
    let host = router.host("host").unwrap();
    let (_runtime, mapping) = asked(&host, &[Protocol::Upnp], 4000);
    mapping.state().borrow().clone()
}

const HERE: &str = "http://GATEWAY:5000/desc";

#[test]
fn huge_deep_and_broken_descriptions_come_to_nothing_in_time() {
    let bodies: [(&str, Vec<u8>); 4] = [
        ("huge", [b"<root>".to_vec(), vec![b' '; 8 << 20]].concat()),
        ("deep", "<a>".repeat(200_000).into_bytes()),
        ("broken", b"<root><device></root>".to_vec()),
        (
            "growing",
            format!(
                "<!DOCTYPE r [<!ENTITY a \"{}\"><!ENTITY b \"{}\"><!ENTITY c \"{}\">]><r>{}</r>",
                "x".repeat(1000),
                "&a;".repeat(1000),
                "&b;".repeat(1000),
                "&c;".repeat(1000)
            )
            .into_bytes(),
        ),
    ];
    std::thread::scope(|scope| {
        for (name, body) in bodies {
            scope.spawn(move || {
                let begun = Instant::now();
                let state = told_by_upnp(HERE, move |_| http("200 OK", "", &body));
                assert!(matches!(state, State::Failed(_)), "{name}: {state:?}");
                assert!(begun.elapsed() < LIMIT, "{name} took {:?}", begun.elapsed());
            });
        }
    });
}

#[test]
fn a_gateway_that_sends_us_elsewhere_is_not_followed() {
    for location in
        ["http://198.51.100.1:5000/desc", "http://127.0.0.1:5000/desc", "https://GATEWAY:5000/", "file:///etc/passwd"]
    {
        let state = told_by_upnp(location, |_| http("200 OK", "", DESCRIPTION.as_bytes()));
        assert!(matches!(state, State::Failed(_)), "{location}: {state:?}");
    }
    let redirected = told_by_upnp(HERE, |_| http("302 Found", "Location: http://198.51.100.1/\r\n", b""));
    assert!(matches!(redirected, State::Failed(_)), "{redirected:?}");
}

/// Its control answers with this.
fn controlled(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> State {
    told_by_upnp(HERE, move |request| match request.split_whitespace().nth(1) {
        Some("/desc") => http("200 OK", "", DESCRIPTION.as_bytes()),
        Some("/scpd") => http("200 OK", "", SCHEMA.as_bytes()),
        _ => answer(request),
    })
}

fn soap(action: &str, inner: &str) -> Vec<u8> {
    let body = format!(
        r#"<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>
        <u:{action}Response xmlns:u="urn:schemas-upnp-org:service:WANIPConnection:1">{inner}</u:{action}Response>
        </s:Body></s:Envelope>"#
    );
    http("200 OK", "", body.as_bytes())
}

#[test]
fn a_upnp_gateway_that_tells_the_truth_is_believed_and_wrong_addresses_are_not() {
    let of = |external: &'static str| {
        controlled(move |request| match request.contains("GetExternalIPAddress") {
            true => soap("GetExternalIPAddress", &format!("<NewExternalIPAddress>{external}</NewExternalIPAddress>")),
            false => soap("AddPortMapping", ""),
        })
    };
    let State::Mapped(mapped) = of("9.9.9.9") else { panic!("the gateway of this test is no gateway") };
    assert_eq!(mapped.external, SocketAddr::from(([9, 9, 9, 9], 4000)));
    for wrong in ["0.0.0.0", "", "one.two", "9.9.9.9.9"] {
        let state = of(wrong);
        assert!(matches!(state, State::Failed(_)), "{wrong:?}: {state:?}");
    }
    let State::Mapped(inner) = of("192.168.0.9") else { panic!() };
    assert!(!is_useful(inner.external, inner.inside, &[IpAddr::from([203, 0, 113, 1])]));
}

#[test]
fn a_gateway_that_says_nothing_after_all_holds_nobody_up() {
    let begun = Instant::now();
    let state = controlled(|_| {
        thread::sleep(LIMIT * 2);
        Vec::new()
    });
    assert!(matches!(state, State::Failed(_)), "{state:?}");
    assert!(begun.elapsed() < LIMIT);
}

// ---- the command

/// What `natpipe` says inside a host, and how it ends, which it has to within the limit.
fn said(host: &Host, args: &[&str]) -> String {
    let mut command = Command::new("timeout");
    command.arg("60").arg(env!("CARGO_BIN_EXE_natpipe")).args(args);
    let output = host.output(&mut command).unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_command_tells_what_the_gateway_offers() {
    let internet = Internet::new().unwrap();
    let router = internet.router("home", Kind::Home).unwrap();
    let daemon = miniupnpd(&router, "enable_natpmp=yes\nenable_upnp=no");
    let external = daemon.external.unwrap().to_string();
    let (host, server) = (router.host("host").unwrap(), internet.host("stun").unwrap());
    let runtime = server.runtime().unwrap();
    let serving = server.run(|| {
        let _inside = runtime.enter();
        natpipe::stun::Server::listen(SocketAddr::from((server.v4().unwrap(), 3478))).start().unwrap()
    });
    let stun = serving.addr().to_string();
    let answer: serde_json::Value =
        serde_json::from_str(&said(&host, &["nat", "--udp-only", "--stun", &stun, "--json"])).unwrap();
    let gateway = &answer["gateways"][0];
    assert_eq!(gateway["gateway"], gateway_of(&router).to_string(), "{answer:#}");
    let by = &gateway["opens_ports_by"];
    assert_eq!((&by["pcp"]["spoken"], &by["nat_pmp"]["external"]), (&true.into(), &external.clone().into()), "{by:#}");
    assert_eq!(by["upnp"]["spoken"], false, "{by:#}");
    let shown = said(&host, &["nat", "--udp-only", "--stun", &stun]);
    assert!(shown.contains(&format!("NAT-PMP    yes, its external address is {external}")), "{shown}");
    assert!(shown.contains("PCP        yes") && shown.contains("UPnP       no"), "{shown}");
}

/// The addresses in the ticket of `natpipe listen` inside a host.
fn ticketed(host: &Host, args: &[&str]) -> Vec<SocketAddr> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_natpipe"));
    command.args(["listen", "--json"]).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = host.start(&mut command).unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let event: serde_json::Value = serde_json::from_str(&line).unwrap();
    let ticket: natpipe::Ticket = event["ticket"].as_str().unwrap().parse().unwrap();
    ticket.addresses().iter().map(|address| address.addr).collect()
}

#[test]
fn a_ticket_names_the_port_that_the_router_has_opened_unless_it_is_not_to_be_asked() {
    let internet = Internet::new().unwrap();
    let router = internet.router("home", Kind::Home).unwrap();
    let daemon = miniupnpd(&router, "enable_natpmp=yes\nenable_upnp=yes");
    let host = router.host("host").unwrap();
    let mapped = |addresses: &[SocketAddr]| addresses.iter().any(|address| Some(address.ip()) == daemon.external);
    assert!(!mapped(&ticketed(&host, &["--no-port-mapping"])));
    assert!(!mappings(&router).contains("dnat"));
    let addresses = ticketed(&host, &[]);
    assert!(mapped(&addresses) && addresses.len() > 1, "{addresses:?}");
    assert_eq!(mappings(&router).matches("dnat").count(), 2, "TCP and UDP: {}", mappings(&router));
}
