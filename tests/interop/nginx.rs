//! Pools behind a reverse proxy that balances: nginx, with a sub-path, headers, and an end that it takes away.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use natpipe::frame::ws::Refusal;
use natpipe::pool::{Backoff, Bound, Client, Context, Event, Pool, Visitor};

use crate::beside::tempdir;

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("nothing within a minute")
}

/// nginx in the foreground, ended with the value.
struct Nginx {
    dir: PathBuf,
    port: u16,
    child: Child,
}

impl Nginx {
    /// Gives `/outer/` to these ports in turn, as `/inner/`, where the request has the right key.
    async fn before(backends: [u16; 2]) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = tempdir("nginx");
        let [a, b] = backends;
        let place = dir.display();
        let conf = format!(
            "daemon off; master_process off; pid {place}/pid; error_log {place}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi;
  uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;
  upstream pool {{ server 127.0.0.1:{a}; server 127.0.0.1:{b}; }}
  server {{
    listen 127.0.0.1:{port};
    location /outer/ {{
      if ($http_x_key != \"let me in\") {{ return 403; }}
      proxy_pass http://pool/inner/;
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection \"upgrade\";
      proxy_set_header X-Forwarded-For $remote_addr;
    }}
  }}
}}
"
        );
        fs::write(dir.join("nginx.conf"), conf).unwrap();
        let child = Self::start(&dir);
        let mut nginx = Self { dir, port, child };
        nginx.is_up().await;
        nginx
    }

    fn start(dir: &std::path::Path) -> Child {
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("nginx");
        command.env("PATH", path).arg("-p").arg(dir).arg("-c").arg(dir.join("nginx.conf")).arg("-e").arg("error.log");
        command.stderr(Stdio::null()).spawn().expect("nginx is installed (`.ci/test` does it)")
    }

    async fn is_up(&mut self) {
        in_time(async {
            while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
                if let Some(status) = self.child.try_wait().unwrap() {
                    panic!("{status}: {}", fs::read_to_string(self.dir.join("error.log")).unwrap_or_default());
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    async fn restart(&mut self) {
        self.stop();
        self.child = Self::start(&self.dir);
        self.is_up().await;
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn url(&self, path: &str) -> String {
        format!("ws://127.0.0.1:{}{path}", self.port)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A pool that answers with its name, bound to `/inner/pool`; what visitors' `X-Forwarded-For` said is noted.
async fn worker(name: &'static str, seen: &Arc<Mutex<Vec<String>>>) -> (Pool, Bound) {
    let pool = Pool::create(name, move |_: Context, msg: String| async move { format!("{name}: {msg}") });
    let seen = seen.clone();
    let hook = move |visitor: Visitor| {
        let from = visitor.request.headers().get("x-forwarded-for").and_then(|from| from.to_str().ok());
        let said = from.map(|from| seen.lock().unwrap().push(from.to_owned()));
        async move { said.ok_or_else(|| Refusal::forbidden("not through the proxy")) }
    };
    let bound = pool.bind("127.0.0.1:0").path("/inner/pool").authenticate(hook).await.unwrap();
    (pool, bound)
}

fn key() -> (HeaderName, HeaderValue) {
    (HeaderName::from_static("x-key"), HeaderValue::from_static("let me in"))
}

async fn client(pool: &Pool, nginx: &Nginx) -> Client {
    let backoff = Backoff::default().first(Duration::from_millis(20)).longest(Duration::from_millis(200));
    in_time(pool.client(nginx.url("/outer/pool")).header(key().0, key().1).backoff(backoff).into_future())
        .await
        .unwrap()
}

/// Who answers a publish, in order.
async fn answers(pool: &Pool) -> Vec<String> {
    let mut answers = pool.publish("who").answers().await.unwrap();
    let mut names = Vec::new();
    while let Some(reply) = in_time(answers.next()).await {
        names.push(reply.unwrap().msg.get().unwrap());
    }
    names.sort();
    names
}

#[tokio::test]
async fn a_pool_of_two_binds_stands_behind_nginx_under_a_path_of_its_own() {
    let seen = Arc::default();
    let ((left, a), (right, b)) = (worker("left", &seen).await, worker("right", &seen).await);
    let mut nginx = Nginx::before([&a, &b].map(|bound| bound.local_addr().port().unwrap())).await;
    let asks = Pool::create("asks", |_: Context, msg: String| async move { format!("asks: {msg}") });

    // Without the header nginx refuses, and another path is not the pool's.
    let mut events = asks.events();
    for (path, status, with) in [("/outer/pool", "403", None), ("/outer/elsewhere", "404", Some(key()))] {
        let connecting = asks.client(nginx.url(path));
        let connecting = with.into_iter().fold(connecting, |connecting, (name, value)| connecting.header(name, value));
        let refused = connecting.start().unwrap();
        let why = in_time(async {
            loop {
                if let Some(Event::Retrying { why, .. }) = events.next().await {
                    return why;
                }
            }
        });
        let why = why.await;
        assert!(why.contains(status), "{path}: {why}");
        refused.stop().await;
    }

    // Four of ours through it: two for each bind, both sides ask alike.
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(client(&asks, &nginx).await);
    }
    in_time(async { tokio::join!(asks.joined(4), left.joined(2), right.joined(2)) }).await;
    assert_eq!(answers(&asks).await, ["left: who", "left: who", "right: who", "right: who"]);
    for pool in [&left, &right] {
        assert_eq!(answers(pool).await, ["asks: who", "asks: who"]);
        assert_eq!(pool.members()[0].path(), "/inner/pool");
    }
    let long = "x".repeat(1 << 20);
    let answer = in_time(asks.rand(long.as_str()).into_future()).await.unwrap().get::<String>().unwrap();
    assert!(answer.ends_with(&long));

    // One bind goes away: its clients come back through the proxy, to the other.
    drop(answer);
    let mut events = left.events();
    b.close().await;
    right.close().await;
    in_time(async { tokio::join!(left.joined(4), asks.joined(4)) }).await;
    assert_eq!(answers(&asks).await, ["left: who"; 4]);

    // The proxy is restarted: all are back.
    nginx.restart().await;
    in_time(async {
        let mut left = 0;
        while left < 4 {
            left += usize::from(matches!(events.next().await, Some(Event::Left(..))));
        }
    })
    .await;
    in_time(async { tokio::join!(left.joined(4), asks.joined(4)) }).await;
    assert_eq!(answers(&left).await, ["asks: who"; 4]);
    assert!(seen.lock().unwrap().iter().all(|from| from == "127.0.0.1"));
}
