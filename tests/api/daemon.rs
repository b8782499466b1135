//! One handler on many listeners.

use natpipe::{Daemon, Family, Interface, NetConf, Pipe, Proto, pipe_open};

use crate::soon;

fn echo() -> Daemon {
    Daemon::new(NetConf::default(), |data, _, pipe: Pipe| async move {
        let _ = pipe.send(data).await;
    })
}

async fn echoes(proto: Proto, dest: std::net::SocketAddr) {
    let client = pipe_open(proto).dest(dest).await.unwrap();
    client.send("hello").await.unwrap();
    assert_eq!(client.recv().await.unwrap(), "hello", "{proto} at {dest}");
}

#[tokio::test]
async fn loopback_listeners_of_both_families_and_protocols_share_a_handler_and_a_port() {
    let daemon = echo();
    for proto in [Proto::Tcp, Proto::Udp] {
        let addrs = daemon.listen_loopback(proto, 0).await.unwrap();
        assert_eq!(addrs.len(), 2);
        assert_eq!(addrs[0].port(), addrs[1].port());
        for addr in addrs {
            echoes(proto, addr).await;
        }
    }
    assert_eq!(daemon.listeners().len(), 4);
    daemon.close().await;
}

#[tokio::test]
async fn listen_all_is_reached_by_every_address_of_the_machine() {
    let daemon = echo();
    let port = daemon.listen_all(Proto::Tcp, 0).await.unwrap()[0].port();
    for interface in Interface::list().unwrap().into_iter().filter(|i| i.flags().up) {
        for addr in interface.addrs().iter().filter(|a| a.scope != natpipe::Scope::LinkLocal) {
            echoes(Proto::Tcp, (addr.ip, port).into()).await;
        }
    }
    daemon.close().await;
}

#[tokio::test]
async fn a_route_can_be_added_and_a_second_listener_on_it_is_refused() {
    let daemon = echo();
    let route = Interface::by_addr("127.0.0.1".parse().unwrap()).unwrap().route(Family::V4).unwrap();
    let addr = daemon.add_listener(Proto::Tcp, &route.bind(0)).await.unwrap();
    echoes(Proto::Tcp, addr).await;
    let error = daemon.add_listener(Proto::Tcp, &route.bind(addr.port())).await.unwrap_err();
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
    assert!(error.to_string().contains("another socket has this port"), "{error}");
    daemon.close().await;
}

#[tokio::test]
async fn close_ends_clients_and_frees_the_port_for_the_next_daemon() {
    let daemon = echo();
    let addr = daemon.listen_loopback(Proto::Tcp, 0).await.unwrap()[0];
    let client = pipe_open(Proto::Tcp).dest(addr).await.unwrap();
    client.send("x").await.unwrap();
    client.recv().await.unwrap();
    daemon.close().await;
    soon("the client hears of it", client.ended()).await;
    let next = echo();
    let again = next.listen_loopback(Proto::Tcp, addr.port()).await.unwrap();
    assert_eq!(again[0], addr);
    echoes(Proto::Tcp, addr).await;
}

#[tokio::test]
async fn dropping_a_daemon_closes_it() {
    let daemon = echo();
    let addr = daemon.listen_loopback(Proto::Tcp, 0).await.unwrap()[0];
    let client = pipe_open(Proto::Tcp).dest(addr).await.unwrap();
    client.send("x").await.unwrap();
    client.recv().await.unwrap();
    drop(daemon);
    soon("the client hears of it", client.ended()).await;
}

#[tokio::test]
async fn each_connection_can_have_a_task_of_its_own() {
    let daemon = Daemon::per_connection(NetConf::default(), |client: Pipe| async move {
        client.send("welcome").await.unwrap();
        while let Ok(line) = client.recv().await {
            client.send(line).await.unwrap();
        }
    });
    let addr = daemon.listen_loopback(Proto::Tcp, 0).await.unwrap()[0];
    let client = pipe_open(Proto::Tcp).dest(addr).await.unwrap();
    assert_eq!(client.recv().await.unwrap(), "welcome");
    client.send("echo").await.unwrap();
    assert_eq!(client.recv().await.unwrap(), "echo");
    daemon.close().await;
}
