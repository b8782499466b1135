//! What 9,900 idle members take of a process's own memory.

use std::io::Write;
use std::net::TcpStream;
use std::process::{Command, Stdio};

use natpipe::pool::{Context, Packed, Pool};

use crate::{runtime, table};

const MEMBERS: usize = 9_900;

/// In a process of its own, whose memory nobody else has used, with descriptors enough for both ends.
pub fn run() {
    let me = std::env::current_exe().unwrap();
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("ulimit -n {}; exec '{}' idle-process", 2 * MEMBERS + 100, me.display()));
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    println!("\n{MEMBERS} idle members of one pool, after one message each way");
    print!("{}", String::from_utf8(output.stdout).unwrap());
}

/// The other ends are plain sockets, which take no memory of the process.
pub fn process() {
    const UPGRADE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    // {msg: "hi", stag: 7}, masked with zeros: it is answered.
    const ASK: &[u8] = b"\x82\x8e\0\0\0\0\x82\xa3msg\xa2hi\xa4stag\x07";
    runtime().block_on(async {
        let pool = Pool::create("worker", |_: Context, msg: Packed| async move { msg });
        let bound = pool.bind("127.0.0.1:0").await.unwrap();
        let addr = bound.local_addr().ip().unwrap();
        let mut far = Vec::with_capacity(MEMBERS);
        let before = resident();
        for n in 1..=MEMBERS {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.write_all(UPGRADE).unwrap();
            stream.write_all(ASK).unwrap();
            far.push(stream);
            pool.joined(n).await;
        }
        for member in pool.members() {
            member.ask(Packed::of("x").unwrap()).send().await.unwrap();
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let each = (resident() - before) / MEMBERS;
        println!("  {each} bytes each");
        table::judge("memory of an idle member", &[("natpipe", &[each as f64])]);
    });
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}
