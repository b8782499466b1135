//! Nodes that meet at brokers.

use std::time::{Duration, Instant};

use natpipe::Ticket;
use natpipe::key::{BrokerUrl, Place, ServerUrl};
use natpipe::nat::Proto;
use natpipe::peer::{Builder, ConnectError, Node, PathKind};
use natpipe::rendezvous::Server;
use natpipe::{Identity, Pipe};

use super::mosquitto::Mosquitto;
use super::soon;

/// The places of a ticket, without its addresses: so that it is not reached straight.
fn places_only(ticket: &Ticket) -> Ticket {
    let servers = ticket.servers().iter().cloned().fold(Ticket::new(ticket.peer()), Ticket::with_server);
    ticket.brokers().iter().cloned().fold(servers, Ticket::with_broker)
}

async fn says(pipe: &Pipe, node: &Node) {
    pipe.send("hello").await.unwrap();
    let (_, accepted) = soon("the pipe", node.accept()).await.unwrap();
    assert_eq!(soon("the message", accepted.recv()).await.unwrap(), "hello");
}

fn node(urls: &[String]) -> Builder {
    urls.iter().fold(Node::builder(), |builder, url| builder.via(url.parse::<Place>().unwrap()))
}

async fn server() -> Server {
    Server::listen("127.0.0.1:0".parse().unwrap(), Identity::generate().unwrap()).start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_is_enough_to_meet() {
    let broker = Mosquitto::new();
    let (ann, bob) = (Node::builder().start().await.unwrap(), node(&[broker.url()]).start().await.unwrap());
    let ticket = bob.ticket().unwrap();
    assert_eq!(ticket.brokers().len(), 1);
    let peer = soon("the connection", ann.peer(&places_only(&ticket))).await.unwrap();
    assert_ne!(peer.path().unwrap().kind, PathKind::Relay);
    says(&peer.open(Proto::Tcp, Default::default()).unwrap(), &bob).await;
    soon("the end", ann.close()).await;
    soon("the end", bob.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_server_and_a_broker_the_one_that_works_is_enough() {
    let (mut broker, server) = (Mosquitto::new(), server().await);
    let places = [broker.url(), server.url().to_string()];
    let bob = node(&places).start().await.unwrap();
    let ticket = places_only(&bob.ticket().unwrap());
    let ann = Node::builder().start().await.unwrap();
    let peer = soon("the connection", ann.peer(&ticket)).await.unwrap();
    says(&peer.open(Proto::Tcp, Default::default()).unwrap(), &bob).await;
    // The relay is the server's, whoever answered first.
    let relayed = Node::builder().relay_only(true).start().await.unwrap();
    let peer = soon("the connection", relayed.peer(&ticket)).await.unwrap();
    assert_eq!(peer.path().unwrap().kind, PathKind::Relay);
    says(&peer.open(Proto::Tcp, Default::default()).unwrap(), &bob).await;
    broker.kill();
    let after = Node::builder().start().await.unwrap();
    let begun = Instant::now();
    let peer = soon("the connection", after.peer(&ticket)).await.unwrap();
    says(&peer.open(Proto::Tcp, Default::default()).unwrap(), &bob).await;
    println!("with a dead broker beside the server: {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_server_beside_a_broker_holds_nobody_up() {
    let broker = Mosquitto::new();
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let key = Identity::generate().unwrap().peer_id();
    let silent = format!("natpipe://{}/#{key}", dead.local_addr().unwrap());
    // It comes to the broker at once, and to the server perhaps later.
    let bob = soon("the start", node(&[silent, broker.url()]).start()).await.unwrap();
    let ticket = places_only(&bob.ticket().unwrap());
    assert_eq!((ticket.servers().len(), ticket.brokers().len()), (1, 1));
    let ann = Node::builder().start().await.unwrap();
    let begun = Instant::now();
    let peer = soon("the connection", ann.peer(&ticket)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    says(&peer.open(Proto::Tcp, Default::default()).unwrap(), &bob).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_relay_the_error_says_that_a_broker_has_none() {
    let broker = Mosquitto::new();
    let bob = node(&[broker.url()]).relay_only(true).start().await.unwrap();
    let ann = Node::builder().relay_only(true).start().await.unwrap();
    let error = soon("the error", ann.connect(&bob.ticket().unwrap(), Proto::Tcp)).await.unwrap_err();
    assert!(matches!(&error, ConnectError::Failed(_)), "{error}");
    assert!(error.to_string().contains("brokers, which relay nothing"), "{error}");
    let nobody = Ticket::new(Identity::generate().unwrap().peer_id()).with_broker(broker.url().parse().unwrap());
    let error = soon("the error", ann.connect(&nobody, Proto::Tcp)).await.unwrap_err();
    println!("nobody there: {error}");
}

#[tokio::test]
async fn no_place_at_all_is_an_error_that_names_it() {
    let nowhere: BrokerUrl = "mqtt://127.0.0.1:1".parse().unwrap();
    let error = soon("the error", Node::builder().via(nowhere).start()).await.unwrap_err();
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    let key = Identity::generate().unwrap().peer_id();
    let server: ServerUrl = format!("natpipe://127.0.0.1:1/#{key}").parse().unwrap();
    let error = soon("the error", Node::builder().via(server).start()).await.unwrap_err();
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_costs_connected_peers_nothing_and_callers_a_pause() {
    let mut broker = Mosquitto::new();
    let bob = node(&[broker.url()]).start().await.unwrap();
    let ticket = places_only(&bob.ticket().unwrap());
    let ann = Node::builder().start().await.unwrap();
    let peer = soon("the connection", ann.peer(&ticket)).await.unwrap();
    let pipe = peer.open(Proto::Tcp, Default::default()).unwrap();
    says(&pipe, &bob).await;
    broker.kill();
    says(&peer.open(Proto::Tcp, Default::default()).unwrap(), &bob).await;
    // Somebody who has been there before calls while it is down, and it comes back.
    let eve = node(&[]).start().await.unwrap();
    broker.start();
    let met = soon("the connection", eve.peer(&ticket)).await.unwrap();
    broker.kill();
    met.close().await;
    let (again, ()) = tokio::join!(soon("the connection", eve.peer(&ticket)), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        broker.start();
    });
    says(&again.unwrap().open(Proto::Tcp, Default::default()).unwrap(), &bob).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_brokers_with_one_dead_on_each_side_still_have_one_in_common() {
    let (mut one, both) = (Mosquitto::new(), Mosquitto::new());
    let bob = node(&[one.url(), both.url()]).start().await.unwrap();
    let ticket = places_only(&bob.ticket().unwrap());
    assert_eq!(ticket.brokers().len(), 2);
    one.kill();
    let ann = Node::builder().start().await.unwrap();
    let peer = soon("the connection", ann.peer(&ticket)).await.unwrap();
    says(&peer.open(Proto::Tcp, Default::default()).unwrap(), &bob).await;
}
