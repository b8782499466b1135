//! The libraries that carry our peers' bytes, with nothing around them, and the same keys, certificates and windows.

use std::net::SocketAddr;
use std::sync::Arc;

use natpipe::Identity;
use natpipe::key::tls;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Endpoint, ServerConfig, TransportConfig, VarInt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::ours::{CHUNK, Meter, for_ever};

const ALPN: &[&[u8]] = &[b"bench"];

/// As our peers have it.
const WINDOW: u32 = 16 << 20;

fn windows() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config.stream_receive_window(VarInt::from_u32(WINDOW));
    config.receive_window(VarInt::from_u32(WINDOW));
    config.send_window(WINDOW.into());
    Arc::new(config)
}

fn address_and_key(said: &str) -> (SocketAddr, &str) {
    let (address, key) = said.split_once('=').unwrap();
    (address.parse().unwrap(), key)
}

/// `OWN MIB`
pub async fn quinn_receiver(args: &[String]) {
    let identity = Identity::generate().unwrap();
    let crypto = tls::server_config(&identity, tls::Allowed::anyone(), ALPN).unwrap();
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(crypto).unwrap()));
    config.transport_config(windows());
    let endpoint = Endpoint::server(config, SocketAddr::new(args[0].parse().unwrap(), 0)).unwrap();
    println!("{}={}", endpoint.local_addr().unwrap(), identity.peer_id());
    let connection = endpoint.accept().await.unwrap().await.unwrap();
    let (_send, mut recv) = connection.accept_bi().await.unwrap();
    let mut meter = Meter::new(&args[1]);
    let rate = loop {
        let chunk = recv.read_chunk(usize::MAX, true).await.unwrap().unwrap();
        if let Some(rate) = meter.count(chunk.bytes.len()) {
            break rate;
        }
    };
    println!("{rate}");
    for_ever().await;
}

/// `ADDRESS=KEY MIB`
pub async fn quinn_sender(args: &[String]) {
    let (to, key) = address_and_key(&args[0]);
    let crypto = tls::client_config(&Identity::generate().unwrap(), key.parse().unwrap(), ALPN).unwrap();
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(crypto).unwrap()));
    config.transport_config(windows());
    let endpoint = Endpoint::client("0.0.0.0:0".parse().unwrap()).unwrap();
    let connection = endpoint.connect_with(config, to, tls::SERVER_NAME).unwrap().await.unwrap();
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    println!("connected");
    let (chunk, bytes) = (vec![7; CHUNK], args[1].parse::<usize>().unwrap() << 20);
    for _ in 0..bytes / CHUNK {
        send.write_all(&chunk).await.unwrap();
    }
    for_ever().await;
}

/// `OWN MIB`
pub async fn rustls_receiver(args: &[String]) {
    let identity = Identity::generate().unwrap();
    let acceptor = TlsAcceptor::from(tls::server_config(&identity, tls::Allowed::anyone(), ALPN).unwrap());
    let listener = TcpListener::bind(SocketAddr::new(args[0].parse().unwrap(), 0)).await.unwrap();
    println!("{}={}", listener.local_addr().unwrap(), identity.peer_id());
    let (stream, _) = listener.accept().await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut stream = acceptor.accept(stream).await.unwrap();
    let (mut meter, mut buffer) = (Meter::new(&args[1]), vec![0; CHUNK]);
    let rate = loop {
        let got = stream.read(&mut buffer).await.unwrap();
        assert!(got > 0);
        if let Some(rate) = meter.count(got) {
            break rate;
        }
    };
    println!("{rate}");
    for_ever().await;
}

/// `ADDRESS=KEY MIB`
pub async fn rustls_sender(args: &[String]) {
    let (to, key) = address_and_key(&args[0]);
    let config = tls::client_config(&Identity::generate().unwrap(), key.parse().unwrap(), ALPN).unwrap();
    let stream = TcpStream::connect(to).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut stream = TlsConnector::from(config).connect(tls::server_name(), stream).await.unwrap();
    println!("connected");
    let (chunk, bytes) = (vec![7; CHUNK], args[1].parse::<usize>().unwrap() << 20);
    for _ in 0..bytes / CHUNK {
        stream.write_all(&chunk).await.unwrap();
    }
    stream.flush().await.unwrap();
    for_ever().await;
}
