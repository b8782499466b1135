use std::time::Duration;

use bytes::BytesMut;
use tokio::runtime::Handle;

use super::frame::{Address, Frame};
use super::link::WINDOW;
use super::unfinished::Unfinished;
use super::*;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);

fn wire(frames: &[Frame]) -> BytesMut {
    let mut wire = BytesMut::new();
    frames.iter().for_each(|frame| frame.write(&mut wire));
    wire
}

fn message(kind: fn(u64, Address, Payload) -> Frame, id: u64) -> Frame {
    let to =
        Address { exchange: String::new(), key: "q".to_owned(), auto_delete: false, durable: false, declare: true };
    kind(id, to, Payload { body: Vec::new().into(), format: None, code: None })
}

/// A link, and the other end of its pipe, which holds next to nothing that nobody asks for.
async fn link(terms: Terms) -> (Link, Pipe) {
    let (near, far) = Pipe::pair(1000, NetConf::default().max_qbytes(1)).unwrap();
    (Link::start(near, Arc::new(Broker::default()), terms).await, far)
}

#[tokio::test]
async fn the_link_whose_unfinished_frame_is_too_much_beside_the_others_is_closed() {
    let terms = Terms { max_body: 1000, unfinished: Unfinished::new(1000) };
    let (first, far_first) = link(terms.clone()).await;
    let (second, far_second) = link(terms).await;
    let begun = [&wire(&[Frame::Hello])[..], &900_u32.to_be_bytes(), &[6; 500]].concat();
    far_first.send(&begun).await.unwrap();
    first.greeted().await;
    far_second.send(&begun).await.unwrap();
    timeout(LONG, second.ended()).await.expect("it keeps too much");
    // The first comes to its end.
    assert!(first.is_live());
    far_first.send([&[6; 400][..], &wire(&[message(Frame::Push, 1)])].concat()).await.unwrap();
    assert_eq!(heard(&far_first, 1).await, [Frame::Hello, Frame::Taken(1)]);
}

/// What comes until the push of this number is taken.
async fn heard(far: &Pipe, until: u64) -> Vec<Frame> {
    let (mut buffer, mut heard) = (BytesMut::new(), Vec::new());
    while heard.last() != Some(&Frame::Taken(until)) {
        let message = far.recv_within(LONG).await.unwrap();
        buffer.extend_from_slice(&message.data);
        while let Some(frame) = Frame::read(&mut buffer, 1000).unwrap() {
            heard.push(frame);
        }
    }
    heard
}

#[tokio::test]
async fn a_call_that_was_given_up_is_neither_answered_nor_refused() {
    let (_link, far) = link(Terms::alone(1000)).await;
    let call = message(Frame::Call, 1);
    far.send(&wire(&[Frame::Hello, call, Frame::GiveUp(1), message(Frame::Push, 2)])).await.unwrap();
    assert_eq!(heard(&far, 2).await, [Frame::Hello, Frame::Taken(2)]);
    far.send(&wire(&[message(Frame::Push, 3)])).await.unwrap();
    assert_eq!(heard(&far, 3).await, [Frame::Taken(3)]);
}

#[tokio::test]
async fn who_calls_gives_up_and_never_reads_leaves_no_tasks_behind() {
    let (link, far) = link(Terms::alone(1000)).await;
    far.send(&wire(&[Frame::Hello])).await.unwrap();
    let alive = || Handle::current().metrics().num_alive_tasks();
    let (before, mut most) = (alive(), 0);
    for ids in (0..20_000).collect::<Vec<_>>().chunks(100) {
        let calls = ids.iter().flat_map(|id| [message(Frame::Call, *id), Frame::GiveUp(*id)]);
        far.send(&wire(&calls.collect::<Vec<_>>())).await.unwrap();
        most = most.max(alive() - before);
    }
    assert!(link.is_live());
    assert!(most <= 2 * WINDOW, "{most} tasks");
}
