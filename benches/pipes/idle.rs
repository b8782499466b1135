//! What 10,000 idle TCP pipes take of a process's own memory.

use std::process::{Command, Stdio};

use natpipe::{Proto, pipe_open};
use tokio::net::TcpListener;

use crate::{runtime, table};

const PIPES: usize = 9_900;

pub fn run() {
    let output = Command::new(std::env::current_exe().unwrap()).arg("idle-process").stderr(Stdio::inherit()).output();
    println!("\n{PIPES} idle TCP pipes in one process, after one message each way");
    print!("{}", String::from_utf8(output.unwrap().stdout).unwrap());
}

/// Half of the descriptors are this process's other ends, bare sockets, which are counted first.
pub fn process(_: &[String]) {
    raise_limit();
    runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut far = Vec::new();
        let mut near = Vec::new();
        for _ in 0..PIPES {
            near.push(tokio::net::TcpStream::connect(addr).await.unwrap());
            far.push(listener.accept().await.unwrap().0);
        }
        let bare = resident();
        let bare_each = |before: usize| (bare - before) / PIPES;
        drop(near);
        let _ = bare_each;
        far.clear();
        let before = resident();
        let mut pipes = Vec::with_capacity(PIPES);
        for n in 0..PIPES {
            pipes.push(pipe_open(Proto::Tcp).dest(addr).await.unwrap());
            let (far_end, _) = listener.accept().await.unwrap();
            far_end.try_write(b"hello").unwrap();
            assert_eq!(pipes[n].recv().await.unwrap(), "hello");
            far.push(far_end);
        }
        let after = resident();
        let each = (after - before) / PIPES;
        println!("  {each} bytes each, of them for the bare socket at the other end a share");
        table::judge("memory of an idle TCP pipe", &[("natpipe", &[each as f64])]);
    });
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

fn raise_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls read or write one rlimit, which stands above.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
    assert!(limit.rlim_cur as usize > 2 * PIPES + 100, "the descriptor limit is {}", limit.rlim_cur);
}
