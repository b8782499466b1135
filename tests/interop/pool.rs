//! Pools: members as the seed's system has them, Python's `websockets`, Node's `ws`, and a page in headless Chromium.

use std::process::{Command, Stdio};
use std::time::Duration;

use natpipe::pool::{Answer, Con, Context, Event, Origins, Pool, Target, Value};
use serde_json::json;

use crate::beside::{Peer, chromium, page, tempdir};
use crate::{python, script};

/// Echoes, streams when asked to, answers nothing when asked to, tells the metadata when asked for them.
fn pool(name: &str) -> Pool {
    Pool::create(name, |ctx: Context, msg: Value| async move {
        let key = |name: &str| {
            msg.as_map()?.iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value.clone())
        };
        if let Some(n) = key("stream") {
            return Answer::stream(futures_util::stream::iter(1..=n.as_u64().unwrap()));
        }
        if key("none").is_some() {
            return Answer::none();
        }
        if msg.as_str() == Some("meta") {
            return Answer::one(ctx.con().meta().get("role").cloned());
        }
        Answer::one(msg)
    })
}

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("nothing within a minute")
}

async fn streamed(con: &Con) -> Vec<u32> {
    let mut answers = con.ask(Value::Map(vec![("stream".into(), 4.into())])).answers().await.unwrap();
    let mut all = Vec::new();
    while let Some(reply) = answers.next().await {
        all.push(reply.unwrap().msg.get().unwrap());
    }
    all
}

async fn asks_and_answers(pool: &Pool, peer: Peer) {
    let con = in_time(async {
        pool.joined(1).await;
        pool.members().remove(0)
    })
    .await;
    let (peer, said) = in_time(peer.line()).await;
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let expected = json!({"echo": ["No one expects the Spanish Inquisition!"], "stream": [1, 2, 3], "none": [],
        "bytes": ["00ff"], "many": 100, "meta": said["meta"]});
    assert_eq!(said, expected);
    assert_eq!(pool.rand("from natpipe").await.unwrap().get::<String>().unwrap(), "from natpipe");
    assert_eq!(streamed(&con).await, [1, 2, 3, 4]);
    drop(peer);
}

#[tokio::test]
async fn a_client_of_the_seeds_system_asks_and_is_asked() {
    let pool = pool("worker");
    let bound = pool.bind("127.0.0.1:0").await.unwrap();
    let port = bound.local_addr().port().unwrap().to_string();
    let peer = Peer::start(python().arg(script("pool/com_peer.py")).args(["client", &port]));
    asks_and_answers(&pool, peer).await;
}

#[tokio::test]
async fn a_unix_client_of_the_seeds_system_asks_and_is_asked() {
    let dir = tempdir("seed-unix");
    let pool = pool("worker");
    let _bound = pool.bind_unix(dir.join("pool")).await.unwrap();
    let peer = Peer::start(python().arg(script("pool/com_peer.py")).arg("unix-client").arg(dir.join("pool")));
    asks_and_answers(&pool, peer).await;
}

#[tokio::test]
async fn a_server_of_the_seeds_system_is_asked_and_connected_to_again() {
    let (peer, port) = in_time(Peer::start(python().arg(script("pool/com_peer.py")).arg("bind")).line()).await;
    let pool = pool("req");
    let client = in_time(pool.client(format!("127.0.0.1:{port}")).into_future()).await.unwrap();
    assert_eq!(pool.rand(vec![1, 2]).await.unwrap().get::<Vec<u8>>().unwrap(), [1, 2]);
    assert_eq!(streamed(&client.con().unwrap()).await, [1, 2, 3, 4]);
    let mut events = pool.events();
    drop(peer);
    while !matches!(in_time(events.next()).await, Some(Event::Left(..))) {}
    assert!(pool.rand("x").await.is_err());
}

#[tokio::test]
async fn a_member_on_pythons_websockets_asks_and_is_asked() {
    let pool = pool("worker");
    let bound = pool.bind("127.0.0.1:0").bearer("secret").await.unwrap();
    let mut events = pool.events();
    let wrong = Peer::start(
        python().arg(script("pool/websockets_member.py")).args([bound.url(), "wrong"]).stderr(Stdio::null()),
    );
    let refused = in_time(events.next()).await;
    assert!(matches!(&refused, Some(Event::Refused { why }) if why.contains("401")), "{refused:?}");
    drop(wrong);
    let peer = Peer::start(python().arg(script("pool/websockets_member.py")).args([bound.url(), "secret"]));
    told_and_asked(&pool, peer, "python").await;
}

#[tokio::test]
async fn a_member_on_nodes_ws_asks_and_is_asked() {
    let pool = pool("worker");
    let bound = pool.bind("127.0.0.1:0").await.unwrap();
    let peer = Peer::start(node().arg(script("pool/ws_member.mjs")).arg(bound.url()));
    told_and_asked(&pool, peer, "node").await;
}

/// It has asked, with its metadata, and got its message back; by them it is asked.
async fn told_and_asked(pool: &Pool, peer: Peer, lang: &str) {
    let (_peer, said) = in_time(peer.line()).await;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&said).unwrap(), json!({"n": [1, 2.5, null, "é"]}));
    let answer = pool.target(Target::exact("lang", lang), 7).await.unwrap();
    assert_eq!(answer.get::<(String, u32)>().unwrap(), (lang.to_owned(), 7));
}

/// Node with the packages of `interop/package.json`.
fn node() -> Command {
    let place = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/node");
    assert!(place.join("node_modules/ws").exists(), "no {}: `.ci/test` makes it", place.display());
    let mut command = Command::new("node");
    command.env("NODE_PLACE", place);
    command
}

#[tokio::test]
async fn a_page_in_a_browser_joins_asks_and_answers_where_its_origin_may() {
    let (told, mut verdicts) = tokio::sync::mpsc::channel(1);
    let pool = Pool::create("worker", move |_: Context, msg: Value| {
        let told = told.clone();
        async move {
            let key = |name: &str| {
                msg.as_map()?.iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value.clone())
            };
            if let Some(n) = key("stream") {
                return Answer::stream(futures_util::stream::iter(1..=n.as_u64().unwrap()));
            }
            if let Some(verdict) = key("verdict") {
                told.send(verdict.to_string()).await.unwrap();
            }
            Answer::one(msg)
        }
    });
    let (port, dir) = (page(), tempdir("chromium"));
    let closed = pool.bind("127.0.0.1:0").await.unwrap();
    let mut events = pool.events();
    let stranger = chromium(&dir.join("stranger"), &format!("http://127.0.0.1:{port}/?pool={}", closed.url()));
    let refused = in_time(events.next()).await;
    assert!(matches!(&refused, Some(Event::Refused { why }) if why.contains("403")), "{refused:?}");
    drop(stranger);

    let origins = Origins::same().allow(format!("http://127.0.0.1:{port}"));
    let bound = pool.bind("127.0.0.1:0").origins(origins).await.unwrap();
    let _browser = chromium(&dir.join("member"), &format!("http://127.0.0.1:{port}/?pool={}", bound.url()));
    assert_eq!(in_time(verdicts.recv()).await.unwrap(), r#"{"same": true, "stream": [1, 2, 3]}"#);
    let page = Target::exact("role", "page");
    assert_eq!(pool.target(page.clone(), "hi").await.unwrap().get::<(String, String)>().unwrap().1, "hi");
    assert_eq!(streamed(&pool.members()[0]).await, [1, 2, 3, 4]);
    let failed = pool.target(page, "fail").await.unwrap_err().to_string();
    assert!(failed.contains("the page fails"), "{failed}");
}
