//! A pool that listens and one that connects: both sides ask alike, one member or all.

use natpipe::pool::{Answer, Context, Pool, Value};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The echo router of the seed.
    let worker = Pool::create("worker", |_ctx: Context, msg: Value| async move { msg });
    let bound = worker.bind("127.0.0.1:0").await?;

    // A router that answers a stream.
    let req =
        Pool::create(
            "req",
            |_ctx: Context, upto: u32| async move { Answer::stream(futures_util::stream::iter(1..=upto)) },
        );
    req.client(bound.url()).await?;
    req.client(bound.url()).await?;

    let answer = req.rand("No one expects the Spanish Inquisition!").await?;
    println!("{}", answer.get::<String>()?);

    let mut answers = worker.publish(3).answers().await?;
    while let Some(reply) = answers.next().await {
        let reply = reply?;
        println!("{}: {}", reply.con, reply.msg.get::<u32>()?);
    }
    worker.close().await;
    Ok(())
}
