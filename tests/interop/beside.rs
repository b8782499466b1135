//! Programs that run beside a test, and a browser with a page in it.

#![allow(dead_code, reason = "the tests of the examples use a part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::script;

/// A program that runs beside the test and ends with it.
pub struct Peer {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Peer {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// Its next line.
    pub async fn line(mut self) -> (Self, String) {
        tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            self.out.read_line(&mut line).unwrap();
            assert!(!line.is_empty(), "it ended: {:?}", self.child.wait());
            (self, line.trim().to_owned())
        })
        .await
        .unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory of the test's own, empty.
pub fn tempdir(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// Serves `interop/browser`, and tells at which port.
pub fn page() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut head) = (stream.unwrap(), [0; 4096]);
            let Ok(n) = stream.read(&mut head) else { continue };
            let head = String::from_utf8_lossy(&head[..n]).into_owned();
            let path = head.split([' ', '?']).nth(1).unwrap_or("/").trim_start_matches('/');
            let (file, kind) = match path {
                "" => ("index.html", "text/html"),
                "smart.html" => ("smart.html", "text/html"),
                "natpipe-pool.js" => ("natpipe-pool.js", "text/javascript"),
                "natpipe-smart.js" => ("natpipe-smart.js", "text/javascript"),
                _ => {
                    let _ =
                        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                    continue;
                }
            };
            let body = std::fs::read(script("browser").join(file)).unwrap();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    port
}

/// A headless browser with a page, which takes any certificate: those of tests are signed by nobody it knows.
pub fn chromium(dir: &Path, url: &str) -> Peer {
    let mut command = Command::new("chromium");
    command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
    command.arg("--ignore-certificate-errors").arg(format!("--user-data-dir={}", dir.display()));
    Peer::start(command.arg(url).stderr(Stdio::null()))
}
