//! Names, answered by a real name server (dnsmasq) on loopback.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use natpipe::net::{ResolveError, Resolver};
use natpipe::pipe::OpenFailure;
use natpipe::{Family, NetConf, Proto, pipe_open};

use crate::soon;

/// A name server that knows these names, stopped with the value.
pub struct NameServer {
    process: Child,
    addr: SocketAddr,
}

impl NameServer {
    pub async fn with(records: &[(&str, &str)]) -> Self {
        // The port may be taken between choosing it and using it: then the server ends at once.
        for _ in 0..10 {
            let mut server = Self::start(records);
            let resolver = server.resolver();
            for _ in 0..50 {
                if resolver.lookup(records[0].0, Family::V4, Duration::from_millis(200)).await.is_ok() {
                    return server;
                }
                if server.process.try_wait().unwrap().is_some() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        panic!("dnsmasq does not answer");
    }

    fn start(records: &[(&str, &str)]) -> Self {
        let addr = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new("dnsmasq");
        command.args(["--no-daemon", "--no-resolv", "--no-hosts", "--bind-interfaces", "--pid-file="]);
        command.args(["--conf-file=/dev/null", "--listen-address=127.0.0.1", "--local=/test/"]);
        command.arg(format!("--port={}", addr.port()));
        for (name, ip) in records {
            command.arg(format!("--host-record={name},{ip}"));
        }
        let process = command.stderr(Stdio::null()).spawn().expect("dnsmasq is installed");
        Self { process, addr }
    }

    fn resolver(&self) -> Resolver {
        Resolver::with_servers(&[self.addr]).unwrap()
    }

    pub fn conf(&self) -> NetConf {
        NetConf::default().resolver(self.resolver())
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const RECORDS: &[(&str, &str)] =
    &[("four.test", "127.0.0.1"), ("six.test", "::1"), ("both.test", "127.0.0.1"), ("both.test", "::1")];

#[tokio::test]
async fn each_family_of_a_name_is_looked_up_by_itself() {
    let server = NameServer::with(RECORDS).await;
    let resolver = server.resolver();
    let ask = async |name, family| resolver.lookup(name, family, Duration::from_secs(2)).await.unwrap();
    assert_eq!(ask("both.test", Family::V4).await, ["127.0.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(ask("both.test", Family::V6).await, ["::1".parse::<IpAddr>().unwrap()]);
    assert!(ask("four.test", Family::V6).await.is_empty());
}

#[tokio::test]
async fn pipes_are_opened_by_name_on_whichever_family_works() {
    let names = NameServer::with(RECORDS).await;
    for (bind, name) in [("127.0.0.1:0", "four.test"), ("[::1]:0", "six.test"), ("127.0.0.1:0", "both.test")] {
        for proto in [Proto::Tcp, Proto::Udp] {
            let server = pipe_open(proto).bind(bind).await.unwrap();
            let port = server.local_addr().port().unwrap();
            let client = pipe_open(proto).dest((name, port)).conf(names.conf()).await.unwrap();
            // Datagrams are not refused in time to choose: the first family that is reachable is taken.
            if proto == Proto::Tcp {
                assert_eq!(client.peer_addr(), Some(server.local_addr()), "{name}");
            }
        }
    }
}

#[tokio::test]
async fn a_name_with_both_families_is_tried_on_ipv6_first() {
    let names = NameServer::with(RECORDS).await;
    // A daemon finds a port that is free in both families.
    let both = natpipe::Daemon::new(NetConf::default(), |_, _, _| ());
    let port = both.listen_loopback(Proto::Tcp, 0).await.unwrap()[0].port();
    let client = pipe_open(Proto::Tcp).dest(("both.test", port)).conf(names.conf()).await.unwrap();
    assert!(client.peer_addr().unwrap().ip().unwrap().is_ipv6());
}

#[tokio::test]
async fn every_refusal_of_a_name_with_several_addresses_is_told() {
    let names = NameServer::with(RECORDS).await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = pipe_open(Proto::Tcp).dest(("both.test", port)).conf(names.conf()).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&format!("127.0.0.1:{port}")) && text.contains(&format!("[::1]:{port}")), "{text}");
}

#[tokio::test]
async fn an_unknown_name_says_that_it_has_no_address() {
    let names = NameServer::with(RECORDS).await;
    for proto in [Proto::Tcp, Proto::Udp] {
        let error = pipe_open(proto).dest("absent.test:80").conf(names.conf()).await.unwrap_err();
        assert!(matches!(error.kind(), OpenFailure::Resolve(ResolveError::NoSuchName { .. })), "{error}");
        assert_eq!(error.to_string(), "`absent.test` has no address");
    }
}

#[tokio::test]
async fn a_name_server_that_does_not_answer_is_given_up_after_dns_timeout() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let resolver = Resolver::with_servers(&[silent.local_addr().unwrap()]).unwrap();
    let conf = NetConf::default().resolver(resolver).dns_timeout(Duration::from_millis(100));
    for proto in [Proto::Tcp, Proto::Udp] {
        let opening = pipe_open(proto).dest("any.test:80").conf(conf.clone());
        let error = soon("it is given up", opening.into_future()).await.unwrap_err();
        assert!(matches!(error.kind(), OpenFailure::Resolve(ResolveError::TimedOut { .. })), "{error}");
    }
}

#[test]
fn no_name_server_at_all_is_refused() {
    assert!(matches!(Resolver::with_servers(&[]), Err(ResolveError::Configuration { .. })));
}

#[tokio::test]
async fn a_family_whose_socket_is_refused_does_not_end_the_race() {
    let names = NameServer::with(RECORDS).await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // IPv4 has no hop limit of zero.
    let error = pipe_open(Proto::Tcp).dest(("both.test", port)).conf(names.conf().ttl(0)).await.unwrap_err();
    assert!(matches!(error.kind(), OpenFailure::Connect { tried, .. } if tried.len() == 2), "{error}");
}

#[tokio::test]
async fn a_socket_that_is_given_is_connected_within_its_own_family() {
    let names = NameServer::with(RECORDS).await;
    let server = pipe_open(Proto::Tcp).bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().port().unwrap();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let client = pipe_open(Proto::Tcp).sock(socket).dest(("both.test", port)).conf(names.conf()).await.unwrap();
    assert_eq!(client.peer_addr(), Some(server.local_addr()));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let client = pipe_open(Proto::Udp).sock(socket).dest(("both.test", port)).conf(names.conf()).await.unwrap();
    assert_eq!(client.peer_addr(), Some(server.local_addr()));
}
