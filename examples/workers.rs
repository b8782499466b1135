//! Work shared among as many workers as there are: `workers boss ADDRESS:PORT JOBS WORKERS` gives jobs in turn to whoever is
//! connected, and `workers worker ADDRESS:PORT` does them. Workers come, go and come back as they like.

use natpipe::smart::{Event, SendMode, SmartSocket};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let socket = SmartSocket::builder().mode(SendMode::RoundRobin).build()?;
    match args[..] {
        ["worker", at] => {
            socket.connect(at)?;
            loop {
                let job = socket.recv_from().await?;
                let number: u64 = String::from_utf8_lossy(&job.data).parse()?;
                socket.send_to(job.from, format!("{number} squared is {}", number * number)).await?;
            }
        }
        ["boss", at, jobs, workers] => {
            let (jobs, mut missing): (u64, usize) = (jobs.parse()?, workers.parse()?);
            let mut events = socket.events();
            println!("{}", socket.bind(at).await?);
            while missing > 0 {
                missing -= usize::from(matches!(events.next().await, Some(Event::Connected { .. })));
            }
            for job in 0..jobs {
                socket.send(job.to_string()).await?;
            }
            for _ in 0..jobs {
                let done = socket.recv_from().await?;
                println!("{}: {}", done.from, String::from_utf8_lossy(&done.data));
            }
            Ok(socket.close().await?)
        }
        _ => Err("usage: workers boss ADDRESS:PORT JOBS WORKERS | workers worker ADDRESS:PORT".into()),
    }
}
