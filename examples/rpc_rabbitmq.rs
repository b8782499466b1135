//! A procedure behind RabbitMQ: `rpc_rabbitmq serve CONFIG` offers it, `rpc_rabbitmq call CONFIG TEXT` calls it. CONFIG is
//! a YAML file such as `{protocol: amqp, host: localhost, port: 5672, vhost: /, user: guest, password: guest, queue: shout}`.

use natpipe::comm::{ApplicationError, CallError, Config, EventDrivenConsumer, Request, RpcProducer};

async fn shout(request: Request) -> Result<String, ApplicationError> {
    match request.body.as_str() {
        Some("") => Err(ApplicationError::critical("there is nothing to shout")),
        Some(text) => Ok(text.to_uppercase()),
        None => Err(ApplicationError::critical("text is wanted")),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["serve", file] => {
            let consumer =
                EventDrivenConsumer::new(shout, &Config::from_yaml(&std::fs::read_to_string(file)?)?).await?;
            println!("serving");
            consumer.start_consuming().await?;
        }
        ["call", file, text] => {
            let calls = RpcProducer::new(&Config::from_yaml(&std::fs::read_to_string(file)?)?).await?;
            match calls.push_message(text).await {
                Ok(answer) => println!("{answer}"),
                Err(CallError::Application(error)) => println!("refused: {error}"),
                Err(error) => return Err(error.into()),
            }
        }
        _ => return Err("usage: rpc_rabbitmq serve CONFIG | rpc_rabbitmq call CONFIG TEXT".into()),
    }
    Ok(())
}
