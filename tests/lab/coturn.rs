//! Somebody else's opinion: coturn's NAT discovery finds what the kinds say. Needs the Debian package coturn.

use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use natpipe::lab::{Host, Internet, Kind};

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has said then.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A STUN server on two addresses, as RFC 5780 wants it.
fn serve(host: &Host, at: [&str; 2]) -> Server {
    let mut command = Command::new("turnserver");
    command.args(["-n", "--no-auth", "--stun-only", "--no-tls", "--no-dtls", "--no-cli", "--log-file=stdout"]);
    command.args(["--no-stdout-log", "--pidfile=/dev/null", "--listening-port=3478", "--alt-listening-port=3479"]);
    command.args(at.map(|address| format!("--listening-ip={address}")));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let server = Server(host.start(&mut command).expect("turnserver runs (Debian package coturn)"));
    let probe = host.run(|| UdpSocket::bind((host.v4().unwrap(), 0))).unwrap();
    probe.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let to: SocketAddr = format!("{}:3479", at[1]).parse().unwrap();
    let request = b"\x00\x01\x00\x00\x21\x12\xa4\x42natpipe-test";
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        // Refused while nobody listens yet.
        let _ = probe.send_to(request, to);
        if probe.recv(&mut [0; 512]).is_ok() {
            return server;
        }
        assert!(Instant::now() < deadline, "turnserver does not answer");
    }
}

/// What it says of mapping and filtering.
fn opinion(client: &Host, server: &str) -> String {
    let own = client.v4().unwrap().to_string();
    let mut command = Command::new("turnutils_natdiscovery");
    command.args(["-m", "-f", "-L", &own, "-p", "3478", server]);
    let output = client.output(&mut command).expect("turnutils_natdiscovery runs (Debian package coturn)");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn coturn_finds_the_mapping_and_the_filtering_that_kinds_promise() {
    let internet = Internet::new().unwrap();
    let server = internet.host("server").unwrap();
    let second = server.add_addresses("eth0").unwrap()[0].to_string();
    let first = server.v4().unwrap().to_string();
    let mut serving = serve(&server, [&first, &second]);
    let endpoint = ["Endpoint Independent", "Address Dependent", "Address and Port Dependent"];
    let [independent, address, port] = endpoint;
    let cases = [
        (Kind::Home, independent, port),
        (Kind::FullCone, independent, independent),
        (Kind::Restricted, independent, address),
        (Kind::SymmetricRandom, port, port),
        (Kind::SymmetricSequential, port, port),
        (Kind::AddressDependent, address, port),
        (Kind::SymmetricEif, port, independent),
        (Kind::SymmetricAdf, port, address),
        (Kind::Double, independent, port),
        ("model-symmetric-independent".parse().unwrap(), port, port),
        ("model-restricted-preserving".parse().unwrap(), independent, address),
    ];
    let opinions: Vec<String> = std::thread::scope(|scope| {
        let ask = |kind| {
            let (internet, first) = (&internet, &first);
            scope.spawn(move || opinion(&internet.behind(kind).unwrap(), first))
        };
        let asked: Vec<_> = cases.iter().map(|(kind, ..)| ask(*kind)).collect();
        asked.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(serving.0.try_wait().unwrap(), None, "turnserver has ended while it was asked");
    for ((kind, mapping, filtering), said) in cases.into_iter().zip(opinions) {
        assert!(said.contains(&format!("NAT with {mapping} Mapping")), "{kind}: {said}");
        assert!(said.contains(&format!("NAT with {filtering} Filtering")), "{kind}: {said}");
    }
}
