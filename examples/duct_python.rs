//! Objects to and from a Python program that this one starts: `duct_python interop/duct/child.py`.

use std::process::Command;

use natpipe::duct::start;
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut python = Command::new("python3");
    python.args(std::env::args().skip(1));
    let (mut child, duct) = start::<Value>(python)?;
    for object in [json!("hello"), json!({"numbers": [1, 2.5, null], "ok": true})] {
        duct.send(&object).await?;
        println!("{}", duct.recv().await?);
    }
    duct.close().await;
    println!("{}", child.wait()?);
    Ok(())
}
