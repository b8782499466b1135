use std::sync::Arc;

use super::*;

#[tokio::test]
async fn what_is_taken_is_not_in_place_until_it_goes_back() {
    let turns = Turns::new(7);
    assert_eq!(turns.in_place().unwrap().as_deref(), Some(&7));
    let mut taken = turns.take().await;
    assert!(turns.in_place().unwrap().is_none());
    *taken += 1;
    drop(taken);
    assert_eq!(turns.in_place().unwrap().as_deref(), Some(&8));
}

#[tokio::test]
async fn those_who_take_it_have_it_in_the_order_in_which_they_asked() {
    let turns = Arc::new(Turns::new(Vec::new()));
    let first = turns.take().await;
    let others: Vec<_> = (0..10)
        .map(|n| {
            let turns = turns.clone();
            tokio::spawn(async move { turns.take().await.push(n) })
        })
        .collect();
    tokio::task::yield_now().await;
    drop(first);
    let slot = turns.in_place().unwrap();
    assert!(turns.take_now(slot).is_err(), "others have asked before");
    for other in others {
        other.await.unwrap();
    }
    assert_eq!(**turns.in_place().unwrap().as_ref().unwrap(), (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn who_gives_up_waiting_does_not_keep_it() {
    let turns = Turns::new(());
    let taken = turns.take().await;
    {
        let waiting = std::pin::pin!(turns.take());
        assert!(look_at(waiting).is_none());
    }
    drop(taken);
    let slot = turns.in_place().unwrap();
    assert!(turns.take_now(slot).is_ok());
}

/// One look at a future.
fn look_at<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
    match future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(done) => Some(done),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_that_have_it_in_place_and_threads_that_take_it_lose_nothing() {
    let turns = Arc::new(Turns::new(0));
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let turns = turns.clone();
            tokio::spawn(async move {
                for _ in 0..1000 {
                    let there = turns.in_place().and_then(|mut slot| slot.as_deref_mut().map(|n| *n += 1));
                    if there.is_none() {
                        let mut taken = turns.take().await;
                        let before = *taken;
                        tokio::task::yield_now().await;
                        *taken = before + 1;
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(turns.in_place().unwrap().as_deref(), Some(&8000));
}
