//! Where only the web passes: websockets, straight, behind the web's TLS, and behind a firewall that looks into connections.

use std::net::SocketAddr;

use natpipe::key::{Carrier, ServerUrl};
use natpipe::pipe::tls::{Identity as WebIdentity, TlsClient, TlsServer};
use natpipe::rendezvous::{Client, ConnectError, Server};
use natpipe::{Identity, NetConf, Pipe, Proto, pipe_open};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{Registered, peer, server, soon};

fn url(server: &Server, carrier: Carrier, port: u16) -> ServerUrl {
    ServerUrl::new(carrier, "127.0.0.1", port, server.url().key()).unwrap().with_path("/meet").unwrap()
}

/// Signals and a relayed stream with a peer that is connected straight.
async fn all_works(server: &Server, client: &Client) {
    let bob: Registered = peer(server).await;
    let to_bob = client.signal(bob.identity.peer_id()).unwrap();
    to_bob.send("hello").await.unwrap();
    let from_web = soon("the conversation", bob.client.accept()).await.unwrap();
    assert_eq!(soon("the message", from_web.recv()).await.unwrap(), "hello");
    let (mut here, mut there) = (to_bob.relay_stream().unwrap(), from_web.relay_stream().unwrap());
    let bytes = vec![7; 3_000_000];
    let mut got = Vec::new();
    let both = async {
        tokio::join!(
            async {
                here.write_all(&bytes).await.unwrap();
                here.shutdown().await.unwrap();
            },
            there.read_to_end(&mut got)
        )
    };
    soon("the stream", both).await.1.unwrap();
    assert!(got == bytes);
}

#[tokio::test]
async fn peers_meet_through_websockets_on_the_same_port() {
    let server = server().await;
    let url = url(&server, Carrier::Ws, server.addr().port());
    let client = soon("the registration", Client::connect(&url, &Identity::generate().unwrap())).await.unwrap();
    all_works(&server, &client).await;
}

#[tokio::test]
async fn peers_meet_behind_the_webs_tls() {
    let server = server().await;
    let web = WebIdentity::self_signed(&["127.0.0.1"]).unwrap();
    let behind = server.addr();
    // What a reverse proxy does.
    let front = pipe_open(Proto::Tcp)
        .bind("127.0.0.1:0")
        .conf(NetConf::default().tls_server(TlsServer::new(web.clone()).unwrap()))
        .up_cb(move |client: Pipe| async move {
            let server = pipe_open(Proto::Tcp).dest(behind).await.unwrap();
            client.add_pipe(&server);
            server.add_pipe(&client);
            client.ended().await;
            server.ended().await;
        })
        .await
        .unwrap();
    let url = url(&server, Carrier::Wss, front.local_addr().port().unwrap());
    let me = Identity::generate().unwrap();
    let trusting = TlsClient::trusting(&web.root_pem()).unwrap();
    let client = Client::builder(&url, &me).web_tls(trusting).connect();
    let client = soon("the registration", client).await.unwrap();
    all_works(&server, &client).await;
    // Without that root the web's TLS does not come about.
    let refused = soon("the refusal", Client::connect(&url, &me)).await;
    assert!(matches!(refused, Err(ConnectError::Open { .. })), "{refused:?}");
}

/// Lets through only what begins as HTTP.
async fn firewall(server: SocketAddr) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut passing = JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            let mut first = [0; 4];
            if client.peek(&mut first).await.is_ok() && first == *b"GET " {
                let mut server = TcpStream::connect(server).await.unwrap();
                passing.spawn(async move { copy_bidirectional(&mut client, &mut server).await.map(drop) });
            }
        }
    });
    (addr, tasks)
}

#[tokio::test]
async fn what_does_not_pass_straight_passes_as_a_websocket() {
    let server = server().await;
    let (wall, _task) = firewall(server.addr()).await;
    let url = ServerUrl::new(Carrier::Natpipe, "127.0.0.1", wall.port(), server.url().key()).unwrap();
    let client = soon("the registration", Client::connect(&url, &Identity::generate().unwrap())).await.unwrap();
    all_works(&server, &client).await;
}

#[tokio::test]
async fn the_key_is_what_counts_behind_a_websocket_too() {
    let server = server().await;
    let other = Identity::generate().unwrap().peer_id();
    let url = ServerUrl::new(Carrier::Ws, "127.0.0.1", server.addr().port(), other).unwrap();
    let refused = soon("the refusal", Client::connect(&url, &Identity::generate().unwrap())).await;
    assert!(matches!(refused, Err(ConnectError::NotTheServer { .. })), "{refused:?}");
}

#[tokio::test]
async fn an_ordinary_web_request_is_answered_as_such() {
    let server = server().await;
    let mut stream = TcpStream::connect(server.addr()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    soon("the answer", stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
}
