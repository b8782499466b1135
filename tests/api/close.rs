//! Closing, dropping, and what must not be left behind.

use std::time::Duration;

use natpipe::pipe::{RecvError, SendError};
use natpipe::{End, NetConf, Pipe, Proto, pipe_open};
use tokio::runtime::Handle;

use crate::{Count, Folder, connected, datagrams, soon, until};

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

#[tokio::test]
async fn close_wakes_every_waiting_receiver_and_frees_the_port() {
    let (server, _client) = datagrams(NetConf::default()).await;
    let waiting: Vec<_> = (0..5)
        .map(|_| {
            let server = server.clone();
            tokio::spawn(async move { server.recv_within(None).await })
        })
        .collect();
    let accepting = {
        let listener = pipe_open(Proto::Tcp).bind("127.0.0.1:0").await.unwrap();
        let accepting = listener.clone();
        let accepting = tokio::spawn(async move { accepting.accept().await });
        tokio::task::yield_now().await;
        listener.close().await;
        accepting
    };
    tokio::task::yield_now().await;
    let addr = server.local_addr().ip().unwrap();
    soon("close", server.close()).await;
    std::net::UdpSocket::bind(addr).expect("the port is free when close returns");
    for receiver in waiting {
        let received = soon("the receiver wakes", receiver).await.unwrap();
        assert_eq!(received.unwrap_err(), RecvError::Ended(End::Closed));
    }
    assert!(soon("accept wakes", accepting).await.unwrap().is_err());
}

#[tokio::test]
async fn dropping_the_last_handle_closes_and_dropping_another_does_not() {
    let ends = connected(NetConf::default()).await;
    let second = ends.client.clone();
    drop(ends.client);
    second.send("alive").await.unwrap();
    assert_eq!(ends.accepted.recv().await.unwrap(), "alive");
    drop(second);
    assert_eq!(soon("the peer hears of it", ends.accepted.ended()).await, End::Finished);
}

#[tokio::test]
async fn sending_after_close_is_an_error_that_says_so() {
    let ends = connected(NetConf::default()).await;
    ends.client.close().await;
    assert!(matches!(ends.client.send("x").await, Err(SendError::Ended(End::Closed))));
    ends.client.close().await;
    assert!(!ends.client.is_open());
}

#[tokio::test]
async fn close_ends_a_send_that_waits_for_a_peer_that_does_not_read() {
    let conf = NetConf::default().send_buffer(10_000).recv_buffer(10_000);
    let ends = connected(conf).await;
    let _unread = ends.accepted.subscribe(natpipe::Filter::all());
    let client = ends.client.clone();
    let sending = tokio::spawn(async move { while client.send([7; 100_000]).await.is_ok() {} });
    until("the sender is stuck", || ends.client.counters().bytes_out > 0).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    soon("close", ends.client.close()).await;
    soon("the sender is told", sending).await.unwrap();
}

#[tokio::test]
async fn close_ends_a_byte_stream_that_another_task_holds() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let ends = connected(NetConf::default().send_buffer(10_000).recv_buffer(10_000)).await;
    let _unread = ends.accepted.subscribe(natpipe::Filter::all());
    let client = ends.client.clone();
    let (reading, writing) = (tokio::io::split(client.into_stream().await), ends.client.clone());
    let (mut reader, mut writer) = reading;
    let reading = tokio::spawn(async move { reader.read(&mut [0; 10]).await });
    let stuck = tokio::spawn(async move {
        loop {
            if let Err(error) = writer.write_all(&[7; 100_000]).await {
                return error.kind();
            }
        }
    });
    until("the writer is stuck", || writing.counters().bytes_out > 0).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    soon("close", writing.close()).await;
    assert_eq!(soon("the writer is told", stuck).await.unwrap(), std::io::ErrorKind::BrokenPipe);
    assert_eq!(soon("the reader is told", reading).await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn closing_a_server_closes_its_clients_and_the_address_can_be_bound_at_once() {
    let conf = NetConf::default().reuse_addr(true);
    let ends = connected(conf.clone()).await;
    let addr = ends.server.local_addr().clone();
    soon("close", ends.server.close()).await;
    assert!(!ends.accepted.is_open());
    assert_eq!(soon("the client hears of it", ends.client.ended()).await, End::Finished);
    let again = pipe_open(Proto::Tcp).bind(&addr).conf(conf).await.unwrap();
    assert_eq!(again.local_addr(), &addr);
}

#[tokio::test]
async fn a_server_may_stop_listening_and_leave_its_clients() {
    let ends = connected(NetConf::default()).await;
    ends.server.stop_listening().await;
    let refused = pipe_open(Proto::Tcp).dest(ends.server.local_addr()).await.unwrap_err();
    assert_eq!(std::io::Error::from(refused).kind(), std::io::ErrorKind::ConnectionRefused);
    ends.client.send("still here").await.unwrap();
    assert_eq!(ends.accepted.recv().await.unwrap(), "still here");
}

#[tokio::test]
async fn a_client_that_nobody_accepted_is_closed_with_its_server() {
    let server = pipe_open(Proto::Tcp).bind("127.0.0.1:0").await.unwrap();
    let client = pipe_open(Proto::Tcp).dest(server.local_addr()).await.unwrap();
    client.send("anybody?").await.unwrap();
    drop(server);
    soon("the client hears of it", client.ended()).await;
}

/// Opens and closes a pipe of each kind, by close and by drop, with data in flight.
async fn open_and_close(n: usize, folder: &Folder) {
    let path = folder.path(&format!("{}", n % 7));
    match n % 5 {
        0 => {
            let ends = connected(NetConf::default()).await;
            ends.client.send("in flight").await.unwrap();
            ends.client.close().await;
        }
        1 => drop(connected(NetConf::default()).await),
        2 => {
            let (server, client) = datagrams(NetConf::default()).await;
            client.send("in flight").await.unwrap();
            server.close().await;
        }
        3 => {
            let conf = NetConf::default().reuse_addr(true);
            let server = pipe_open(Proto::Unix).bind(path.clone()).conf(conf).msg_cb(|_, _, _| ()).await.unwrap();
            let client = pipe_open(Proto::Unix).dest(path).await.unwrap();
            client.send("in flight").await.unwrap();
            server.close().await;
        }
        _ => {
            let (a, b) = Pipe::pair(100, NetConf::default()).unwrap();
            a.add_pipe(&b);
            a.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_opens_and_closes_leave_no_task_descriptor_or_port() {
    let folder = Folder::new();
    open_and_close(0, &folder).await;
    until("the first is gone", || tasks() == 0).await;
    // Other tests of this process open descriptors too: many more than those would have to be lost.
    let before = descriptors();
    for n in 0..10_000 {
        open_and_close(n, &folder).await;
    }
    until("every task has ended", || tasks() == 0).await;
    until("every descriptor is closed", || descriptors() < before + 500).await;
}

#[tokio::test]
async fn a_pipe_that_only_holds_a_socket_can_be_closed_again() {
    for taken in [false, true] {
        let conf = NetConf::default().sock_only(true);
        let pipe = pipe_open(Proto::Udp).bind("127.0.0.1:0").conf(conf).await.unwrap();
        let other = pipe.clone();
        match taken {
            true => drop(pipe.into_socket().unwrap()),
            false => soon("close", pipe.close()).await,
        }
        soon("another close", other.close()).await;
    }
}

#[tokio::test]
async fn a_pipe_that_its_handler_has_closed_ends_beside_a_full_subscription() {
    let (near, far) = Pipe::pair(1000, NetConf::default().max_qsize(1)).unwrap();
    let unread = near.subscribe(natpipe::Filter::all());
    near.add_msg_cb(|msg, _, pipe: Pipe| async move {
        if msg == "last" {
            pipe.close().await;
        }
    });
    far.send("first").await.unwrap();
    until("it has come", || near.counters().messages_in == 1).await;
    far.send("last").await.unwrap();
    assert_eq!(soon("the end", near.ended()).await, End::Closed);
    assert_eq!(near.counters().dropped, 1);
    drop(unread);
}

#[tokio::test]
async fn close_from_outside_does_not_wait_for_a_handler_that_has_closed_and_stays() {
    let (near, far) = Pipe::pair(1000, NetConf::default()).unwrap();
    let closed = Count::default();
    let noted = closed.clone();
    near.add_msg_cb(move |_, _, pipe: Pipe| {
        let noted = noted.clone();
        async move {
            pipe.close().await;
            noted.up();
            std::future::pending::<()>().await;
        }
    });
    far.send("close").await.unwrap();
    until("the handler has closed", || closed.get() == 1).await;
    soon("close", near.close()).await;
}
