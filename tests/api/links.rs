//! Pipes linked to pipes.

use std::time::Duration;

use natpipe::pipe::{RecvError, Relay, SendError};
use natpipe::{End, NetConf, Pipe, Proto, pipe_open};

use crate::{Count, Folder, connected, soon, until};

/// Bytes in which each place differs from its neighbours, so that a loss or a swap shows.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 31 % 251) as u8).collect()
}

/// Sends `data` into one end, finishes, and checks that it comes out of the other whole.
async fn carries(from: &Pipe, to: &Pipe, data: &[u8]) {
    let (sender, sent) = (from.clone(), data.to_vec());
    let sending = tokio::spawn(async move {
        for part in sent.chunks(50_000) {
            sender.send(part).await.unwrap();
        }
        sender.finish().await.unwrap();
    });
    let mut got = Vec::with_capacity(data.len());
    loop {
        match soon("more bytes", to.recv_within(None)).await {
            Ok(message) => got.extend_from_slice(&message.data),
            Err(error) => break assert_eq!(error, RecvError::Ended(End::Finished)),
        }
    }
    sending.await.unwrap();
    assert!(got == data, "{} of {} bytes came through, or they are not the same", got.len(), data.len());
}

/// One end of each kind of stream for a relay's use, and the far end that a program would hold.
async fn end_of(kind: &str, folder: &Folder) -> (Pipe, Pipe) {
    match kind {
        "tcp" => {
            let ends = connected(NetConf::default()).await;
            (ends.accepted, ends.client)
        }
        "unix" => {
            let path = folder.path(&format!("{:?}", std::time::Instant::now()).replace(' ', ""));
            let server = pipe_open(Proto::Unix).bind(path.clone()).await.unwrap();
            let client = pipe_open(Proto::Unix).dest(path).await.unwrap();
            let accepted = server.accept().await.unwrap();
            server.stop_listening().await;
            (accepted, client)
        }
        "tls" => crate::tls::ends().await,
        _ => Pipe::pair(10_000, NetConf::default()).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_mix_of_streams_is_relayed_both_ways_whole_and_ends_by_itself() {
    let folder = Folder::new();
    let data = pattern(3_000_000);
    for a in ["tcp", "unix", "tls", "memory"] {
        for b in ["tcp", "unix", "tls", "memory"] {
            let ((near_a, far_a), (near_b, far_b)) = (end_of(a, &folder).await, end_of(b, &folder).await);
            let relay = tokio::spawn(Relay::new(near_a, near_b).wait());
            carries(&far_a, &far_b, &data).await;
            carries(&far_b, &far_a, &data[..1_000_000]).await;
            let (at_a, at_b) = soon("the relay ends", relay).await.unwrap();
            assert_eq!((at_a.bytes_in, at_b.bytes_out), (3_000_000, 3_000_000), "{a} to {b}");
            assert_eq!((at_b.bytes_in, at_a.bytes_out), (1_000_000, 1_000_000), "{b} to {a}");
        }
    }
}

#[tokio::test]
async fn a_handler_beside_a_link_hears_what_passes() {
    let (a, b) = (connected(NetConf::default()).await, connected(NetConf::default()).await);
    let heard = Count::default();
    let noted = heard.clone();
    a.accepted.add_pipe(&b.accepted);
    a.client.send("unheard").await.unwrap();
    assert_eq!(b.client.recv().await.unwrap(), "unheard");
    let id = a.accepted.add_msg_cb(move |_, _, _| noted.up());
    a.client.send("heard").await.unwrap();
    assert_eq!(b.client.recv().await.unwrap(), "heard");
    until("the handler hears it", || heard.get() == 1).await;
    assert!(a.accepted.del_msg_cb(id));
    a.client.send("unheard again").await.unwrap();
    assert_eq!(b.client.recv().await.unwrap(), "unheard again");
    assert_eq!(heard.get(), 1);
}

#[tokio::test]
async fn del_pipe_cuts_the_link_and_leaves_both_pipes_open() {
    let (a, b) = (connected(NetConf::default()).await, connected(NetConf::default()).await);
    a.accepted.add_pipe(&b.accepted);
    a.client.send("through").await.unwrap();
    assert_eq!(b.client.recv().await.unwrap(), "through");
    assert!(a.accepted.del_pipe(&b.accepted));
    assert!(!a.accepted.del_pipe(&b.accepted));
    a.client.send("kept").await.unwrap();
    assert_eq!(a.accepted.recv().await.unwrap(), "kept");
    b.accepted.send("still open").await.unwrap();
    assert_eq!(b.client.recv().await.unwrap(), "still open");
}

#[tokio::test]
async fn what_came_before_the_link_passes_through_it() {
    let (a, b) = (connected(NetConf::default()).await, connected(NetConf::default()).await);
    a.client.send("early ").await.unwrap();
    until("it has arrived", || a.accepted.counters().bytes_in == 6).await;
    a.accepted.add_pipe(&b.accepted);
    a.client.send("late").await.unwrap();
    assert_eq!(b.client.recv_n(10).await.unwrap(), "early late");
}

#[tokio::test]
async fn datagrams_and_streams_are_linked_message_by_message() {
    let stream = connected(NetConf::default()).await;
    let far = pipe_open(Proto::Udp).bind("127.0.0.1:0").await.unwrap();
    let near = pipe_open(Proto::Udp).dest(far.local_addr()).await.unwrap();
    stream.accepted.add_pipe(&near);
    near.add_pipe(&stream.accepted);
    stream.client.send("to the datagrams").await.unwrap();
    let message = far.recv_from().await.unwrap();
    assert_eq!(message.data, "to the datagrams");
    far.send_to("to the stream", message.from).await.unwrap();
    assert_eq!(stream.client.recv().await.unwrap(), "to the stream");
}

#[tokio::test]
async fn a_slow_sink_stops_the_source_of_its_link() {
    let conf = NetConf::default().send_buffer(50_000).recv_buffer(50_000);
    let (a, b) = (connected(conf.clone()).await, connected(conf).await);
    a.accepted.add_pipe(&b.accepted);
    let (client, sent) = (a.client.clone(), Count::default());
    let counted = sent.clone();
    let sender = tokio::spawn(async move {
        while client.send([7; 10_000]).await.is_ok() {
            counted.up();
        }
    });
    sent.settles().await;
    assert!(sent.get() < 1000, "{} sends of 10 kB went nowhere", sent.get());
    sender.abort();
}

#[tokio::test]
async fn several_sources_finish_their_sink_with_the_last_of_them() {
    let sink = connected(NetConf::default()).await;
    let sources = [connected(NetConf::default()).await, connected(NetConf::default()).await];
    for source in &sources {
        source.accepted.add_pipe(&sink.accepted);
    }
    sources[0].client.send("one").await.unwrap();
    assert_eq!(sink.client.recv().await.unwrap(), "one");
    sources[0].client.close().await;
    soon("the first source ends", sources[0].accepted.ended()).await;
    sources[1].client.send("two").await.unwrap();
    assert_eq!(sink.client.recv().await.unwrap(), "two");
    sources[1].client.close().await;
    assert_eq!(sink.client.recv().await, Err(RecvError::Ended(End::Finished)));
}

#[tokio::test]
async fn a_reset_at_one_end_of_a_relay_ends_the_other() {
    let (a, b) = (connected(NetConf::default().linger(Duration::ZERO)).await, connected(NetConf::default()).await);
    let relay = tokio::spawn(Relay::new(a.accepted.clone(), b.accepted.clone()).wait());
    a.accepted.send("unread").await.unwrap();
    a.client.close().await;
    soon("the relay ends", relay).await.unwrap();
    assert!(matches!(soon("the end", b.client.ended()).await, End::Finished | End::Broken(_)));
}

#[tokio::test]
async fn a_sink_that_is_gone_is_unlinked_and_the_loss_counted() {
    let (a, b) = (connected(NetConf::default()).await, connected(NetConf::default()).await);
    a.accepted.add_pipe(&b.accepted);
    b.accepted.close().await;
    assert!(matches!(b.accepted.send("x").await, Err(SendError::Ended(_))));
    a.client.send("nowhere to go").await.unwrap();
    a.client.send(" and kept").await.unwrap();
    let kept = soon("the source can be received from", a.accepted.recv_within(None)).await;
    assert!(kept.is_ok());
}

#[tokio::test]
async fn a_relay_whose_handles_are_gone_lives_until_an_end_does_and_not_longer() {
    let (a, b) = (connected(NetConf::default()).await, connected(NetConf::default()).await);
    a.accepted.add_pipe(&b.accepted);
    b.accepted.add_pipe(&a.accepted);
    drop((a.accepted, b.accepted));
    a.client.send("still relayed").await.unwrap();
    assert_eq!(b.client.recv().await.unwrap(), "still relayed");
    a.client.close().await;
    assert_eq!(soon("the far end hears of it", b.client.ended()).await, End::Finished);
    b.client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_comes_together_with_the_end_gets_what_came_before_it() {
    for turn in 0..3000_u32 {
        let ends = connected(NetConf::default()).await;
        let (near, far) = Pipe::pair(10_000, NetConf::default()).unwrap();
        ends.client.send(pattern(3_000)).await.unwrap();
        ends.client.finish().await.unwrap();
        // From before the bytes have come until after the end has.
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_micros(u64::from(turn % 100)) {
            std::hint::spin_loop();
        }
        ends.accepted.add_pipe(&near);
        let mut got = Vec::new();
        while let Ok(message) = soon("more bytes", far.recv_within(None)).await {
            got.extend_from_slice(&message.data);
        }
        assert!(got == pattern(3_000), "turn {turn}: {} of 3000 bytes", got.len());
    }
}

#[tokio::test]
async fn a_datagram_that_is_refused_is_lost_and_its_link_stays() {
    let far = pipe_open(Proto::Udp).bind("127.0.0.1:0").await.unwrap();
    let sink = pipe_open(Proto::Udp).dest(far.local_addr()).await.unwrap();
    let source = pipe_open(Proto::Udp).bind("[::1]:0").await.unwrap();
    source.add_pipe(&sink);
    let sender = pipe_open(Proto::Udp).dest(source.local_addr()).await.unwrap();
    // IPv6 carries a little more than IPv4 does.
    sender.send(vec![7; 65_527]).await.unwrap();
    sender.send("next").await.unwrap();
    assert_eq!(soon("the next one", far.recv_within(None)).await.unwrap().data, "next");
    assert_eq!(source.counters().dropped, 1);
}

#[tokio::test]
async fn the_bytes_of_a_stream_are_cut_to_what_a_datagram_takes() {
    let (near, far) = Pipe::pair(1 << 17, NetConf::default().reader_limit(1 << 17)).unwrap();
    let receiver = pipe_open(Proto::Udp).bind("127.0.0.1:0").await.unwrap();
    let sink = pipe_open(Proto::Udp).dest(receiver.local_addr()).await.unwrap();
    let data = pattern(100_000);
    far.send(&data).await.unwrap();
    near.add_pipe(&sink);
    let mut got = Vec::new();
    while got.len() < data.len() {
        got.extend_from_slice(&soon("more bytes", receiver.recv_within(None)).await.unwrap().data);
    }
    assert!(got == data);
}

#[tokio::test]
async fn a_source_that_is_unlinked_after_its_end_counts_once() {
    let sink = connected(NetConf::default()).await;
    let sources =
        [connected(NetConf::default()).await, connected(NetConf::default()).await, connected(NetConf::default()).await];
    for source in &sources {
        source.accepted.add_pipe(&sink.accepted);
    }
    for source in &sources[..2] {
        source.client.finish().await.unwrap();
        soon("the source ends", source.accepted.ended()).await;
        source.accepted.del_pipe(&sink.accepted);
        // Closed, it has told whom it had to tell.
        source.accepted.close().await;
    }
    sources[2].client.send("the last").await.unwrap();
    assert_eq!(soon("a message", sink.client.recv_within(None)).await.unwrap().data, "the last");
}
