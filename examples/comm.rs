//! A producer, a call and a consumer. `cargo run --example comm` needs no broker; with the name of a
//! configuration file (YAML, seed 003's keys) it talks through what that names.

use natpipe::comm::{
    ApplicationError, AsynchronProducer, CallError, Config, EventDrivenConsumer, Request, RpcProducer,
};

async fn shout(request: Request) -> Result<String, ApplicationError> {
    match request.body.as_str() {
        Some(text) => Ok(text.to_uppercase()),
        None => Err(ApplicationError::critical("text is wanted")),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let conf = match std::env::args().nth(1) {
        Some(file) => Config::from_yaml(&std::fs::read_to_string(file)?)?,
        None => Config::new("memory").queue("test"),
    };
    let consumer = EventDrivenConsumer::new(shout, &conf).await?;
    let cancel = consumer.cancel();
    let consuming = tokio::spawn(consumer.start_consuming());

    AsynchronProducer::new(&conf).await?.push_message("nobody waits for this").await?;
    let calls = RpcProducer::new(&conf).await?;
    println!("{}", calls.push_message("test message").await?);
    match calls.push_message(42).await {
        Err(CallError::Application(error)) => println!("refused: {error}"),
        other => println!("{other:?}"),
    }

    cancel.cancel();
    println!("{} messages processed", consuming.await??.processed);
    Ok(())
}
