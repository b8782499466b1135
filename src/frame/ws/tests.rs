use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use ::bytes::BytesMut;

use super::*;

async fn pair(conf: &Conf) -> (WebSocket<DuplexStream>, WebSocket<DuplexStream>) {
    let (near, far) = duplex(1 << 16);
    let (client, server) = tokio::join!(connect(near, "ws://host/path", conf), accept(far, conf));
    (client.unwrap().socket, server.unwrap().socket)
}

/// What a server answers to these bytes, and the error that it has.
async fn answered(bytes: &[u8]) -> (String, UpgradeError) {
    let (mut near, far) = duplex(1 << 16);
    near.write_all(bytes).await.unwrap();
    let error = Incoming::read(far, &Conf::default()).await.unwrap_err();
    let mut said = String::new();
    near.read_to_string(&mut said).await.unwrap();
    (said, error)
}

fn asking(change: impl Fn(&str) -> String) -> Vec<u8> {
    let lines = [
        "GET / HTTP/1.1",
        "Host: x",
        "Upgrade: websocket",
        "Connection: keep-alive, Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    let lines: Vec<_> = lines.iter().map(|line| change(line)).filter(|line| !line.is_empty()).collect();
    format!("{}\r\n\r\n", lines.join("\r\n")).into_bytes()
}

#[tokio::test]
async fn the_example_of_the_rfc_is_answered_as_there() {
    let (mut near, far) = duplex(1 << 16);
    near.write_all(&asking(str::to_owned)).await.unwrap();
    // A masked text frame in the same segment as the request is not lost.
    near.write_all(b"\x81\x82\0\0\0\0hi").await.unwrap();
    let mut accepted = accept(far, &Conf::default()).await.unwrap();
    let mut head = vec![0; 300];
    let n = near.read(&mut head).await.unwrap();
    let head = String::from_utf8_lossy(&head[..n]).into_owned();
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    assert_eq!(accepted.socket.next().await.unwrap().unwrap(), Message::text("hi"));
}

#[tokio::test]
async fn a_request_that_is_none_for_a_websocket_is_answered_with_its_status() {
    let without =
        |name: &'static str| asking(move |line| if line.starts_with(name) { String::new() } else { line.into() });
    let with = |from: &'static str, to: &'static str| asking(move |line| line.replace(from, to));
    let cases: [(Vec<u8>, &str); 10] = [
        (without("Upgrade"), "426"),
        (without("Connection"), "426"),
        (without("Host"), "400"),
        (without("Sec-WebSocket-Key"), "400"),
        (with("dGhl", "dGh"), "400"),
        (with(": 13", ": 8"), "426"),
        (with("GET", "POST"), "405"),
        (with("HTTP/1.1", "HTTP/1.0"), "505"),
        (b"\x16\x03\x01\x02\x00\x01".to_vec(), "400"),
        (with("Host: x", &*format!("Host: x\r\nCookie: {}", "c".repeat(20_000)).leak()), "431"),
    ];
    for (bytes, status) in cases {
        let (said, error) = answered(&bytes).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{status} expected: {said}");
        assert!(matches!(error, UpgradeError::Refused(_)), "{error}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_or_says_nothing_is_an_error_without_an_answer() {
    let (mut near, far) = duplex(100);
    near.write_all(b"GET / HT").await.unwrap();
    drop(near);
    assert!(matches!(Incoming::read(far, &Conf::default()).await, Err(UpgradeError::Cut)));
    tokio::time::pause();
    let (_near, far) = duplex(100);
    assert!(matches!(Incoming::read(far, &Conf::default()).await, Err(UpgradeError::TimedOut { .. })));
}

#[tokio::test]
async fn a_refusal_reaches_the_client_with_its_sentence() {
    let (near, far) = duplex(1 << 16);
    let refusing = async {
        let incoming = Incoming::read(far, &Conf::default()).await.unwrap();
        assert_eq!(incoming.request().uri().path(), "/pool");
        assert_eq!(incoming.request().headers()["authorization"], "Bearer t");
        incoming.refuse(Refusal::forbidden("not today")).await
    };
    let conf = Conf::default()
        .header(http::header::AUTHORIZATION, http::HeaderValue::from_static("Bearer t"))
        .header(http::header::UPGRADE, http::HeaderValue::from_static("h2c"));
    let (error, _) = tokio::join!(connect(near, "ws://user@host:81/pool", &conf), refusing);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("403") && error.contains("not today"), "{error}");
}

/// A reverse proxy refuses and keeps the connection open: its status is told at once, and does not wait for an end.
#[tokio::test(start_paused = true)]
async fn a_refusal_on_a_connection_that_stays_open_is_told() {
    for body in ["Content-Length: 9\r\n\r\nnot today", "Transfer-Encoding: chunked\r\n\r\nnot today"] {
        let (near, mut far) = duplex(1 << 16);
        far.write_all(format!("HTTP/1.1 403 Forbidden\r\n{body}").as_bytes()).await.unwrap();
        let error = connect(near, "ws://host/", &Conf::default()).await.unwrap_err();
        assert!(matches!(error, ConnectError::Status { .. }), "{error}");
        assert!(error.to_string().contains("403") && error.to_string().contains("not today"), "{error}");
        drop(far);
    }
}

#[tokio::test]
async fn what_is_no_websocket_server_is_named() {
    for (answer, expected) in [
        (&b"SSH-2.0-x\r\n\r\n"[..], "no HTTP response"),
        (b"", "hung up"),
        (b"HTTP/1.1 101 X\r\n\r\n", "something else"),
        (
            b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
            "Accept is wrong",
        ),
        (b"HTTP/1.1 404 X\r\n\r\n", "404"),
    ] {
        let (near, mut far) = duplex(1 << 16);
        far.write_all(answer).await.unwrap();
        let asked = async {
            let mut sent = [0; 4096];
            let _n = far.read(&mut sent).await.unwrap();
            drop(far);
        };
        let conf = Conf::default();
        let (error, ()) = tokio::join!(connect(near, "ws://host/", &conf), asked);
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let (near, _far) = duplex(100);
    assert!(matches!(connect(near, "http://host/", &Conf::default()).await, Err(ConnectError::Url { .. })));
}

#[tokio::test]
async fn both_agree_on_a_subprotocol() {
    let (near, far) = duplex(1 << 16);
    let (ours, theirs) = (Conf::default().subprotocol("b").subprotocol("a"), Conf::default().subprotocol("a"));
    let (client, server) = tokio::join!(connect(near, "ws://host/", &ours), accept(far, &theirs));
    assert_eq!(client.unwrap().subprotocol.unwrap(), "a");
    assert_eq!(server.unwrap().subprotocol.unwrap(), "a");
}

#[tokio::test]
async fn messages_pings_and_the_goodbye_cross() {
    let (mut client, mut server) = pair(&Conf::default()).await;
    client.send(Message::Ping("x".into())).await.unwrap();
    client.send(Message::text("é")).await.unwrap();
    assert_eq!(server.next().await.unwrap().unwrap(), Message::Ping("x".into()));
    assert_eq!(server.next().await.unwrap().unwrap(), Message::text("é"));
    let sending = server.send(Message::binary(vec![7; 100_000]));
    let reading = async { (client.next().await.unwrap().unwrap(), client.next().await.unwrap().unwrap()) };
    let (sent, read) = tokio::join!(sending, reading);
    sent.unwrap();
    assert_eq!(read, (Message::Pong("x".into()), Message::binary(vec![7; 100_000])));
    let closing = client.close(Close::new(4000, "enough"));
    let heard = async {
        let heard = server.next().await.unwrap().unwrap();
        assert!(server.next().await.is_none());
        heard
    };
    let (closed, heard) = tokio::join!(closing, heard);
    closed.unwrap();
    assert_eq!(heard, Message::Close(Close::new(4000, "enough")));
    assert!(matches!(client.send(Message::text("late")).await, Err(WsError::Closed)));
}

/// What a server says, and the code that the client sees, when these bytes come.
async fn code_for(bytes: &[u8]) -> (WsError, u16) {
    let (mut near, far) = duplex(1 << 16);
    let mut server =
        WebSocket::after_upgrade(far, BytesMut::new(), Role::Server, &Conf::default().max_message(1000)).await;
    near.write_all(bytes).await.unwrap();
    let error = loop {
        match server.next().await.unwrap() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    let mut said = [0; 4];
    near.read_exact(&mut said).await.unwrap();
    assert_eq!(said[0], 0x88, "a close frame");
    assert!(server.next().await.is_none(), "nothing comes after an error");
    (error, u16::from_be_bytes([said[2], said[3]]))
}

#[tokio::test]
async fn each_breach_is_closed_with_its_code() {
    let cases: [(&[u8], u16); 8] = [
        (b"\x82\x02hi", 1002),                                       // not masked
        (b"\xC2\x82\0\0\0\0hi", 1002),                               // a reserved bit
        (b"\x83\x82\0\0\0\0hi", 1002),                               // a reserved opcode
        (b"\x80\x82\0\0\0\0hi", 1002),                               // a continuation of nothing
        (b"\x09\x82\0\0\0\0hi", 1002),                               // a ping in fragments
        (b"\x81\x82\0\0\0\0\xFF\xFE", 1007),                         // text that is no UTF-8
        (b"\x82\xFE\x03\xE9\0\0\0\0", 1009),                         // 1001 bytes announced
        (b"\x82\xFF\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0\0\0", 1009), // 2^63 - 1 bytes announced
    ];
    for (bytes, code) in cases {
        let (error, said) = code_for(bytes).await;
        assert_eq!(said, code, "{bytes:x?}: {error}");
    }
    let mut fragments = Vec::new();
    for first in [0x02, 0x00, 0x00] {
        fragments.extend_from_slice(&[first, 0xFE, 0x01, 0xF4, 0, 0, 0, 0]);
        fragments.extend_from_slice(&[0; 500]);
    }
    let (error, said) = code_for(&fragments).await;
    assert_eq!(said, 1009, "{error}");
}

#[tokio::test]
async fn an_end_without_a_goodbye_is_told() {
    let (client, mut server) = pair(&Conf::default()).await;
    drop(client);
    assert!(matches!(server.next().await, Some(Err(WsError::Cut))));
    assert!(server.next().await.is_none());
}

#[tokio::test]
async fn bytes_cross_whatever_the_messages_are() {
    let (client, mut server) = pair(&Conf::default()).await;
    let mut client = client.into_bytes();
    server.send(Message::binary("ab")).await.unwrap();
    server.send(Message::binary("")).await.unwrap();
    server.send(Message::binary("cd")).await.unwrap();
    let mut four = [0; 4];
    client.read_exact(&mut four).await.unwrap();
    assert_eq!(&four, b"abcd");
    client.write_all(b"xyz").await.unwrap();
    client.shutdown().await.unwrap();
    let mut server = server.into_bytes();
    let mut all = String::new();
    server.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "xyz");
}

#[tokio::test]
async fn a_text_message_among_bytes_closes_with_1003() {
    let (mut client, server) = pair(&Conf::default()).await;
    client.send(Message::text("no")).await.unwrap();
    let mut server = server.into_bytes();
    assert_eq!(server.read(&mut [0; 4]).await.unwrap_err().kind(), std::io::ErrorKind::InvalidData);
    let Some(Ok(Message::Close(close))) = client.next().await else { panic!("no close") };
    assert_eq!(close.code, Close::UNSUPPORTED);
}
