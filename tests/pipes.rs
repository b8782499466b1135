use natpipe::{Proto, pipe_open};
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut far = vec![];
    for n in 0..2000 {
        let p = pipe_open(Proto::Tcp).dest(listener.local_addr().unwrap()).await.unwrap();
        let (f, _) = listener.accept().await.unwrap();
        f.try_write(b"hello").unwrap();
        let r = p.recv().await;
        if r.is_err() {
            println!("{n} {r:?} {:?} again {:?}", p.counters(), p.recv().await);
            panic!();
        }
        far.push((p, f));
    }
}
