//! Programs on pika, written as seed 003's are, in both roles.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use natpipe::comm::{ApplicationError, AsynchronProducer, CallError, Config, Format, Request, RpcProducer, Value};
use tokio::task::spawn_blocking;

use crate::amqp::{collect, conf};
use crate::broker::Broker;
use crate::{Consuming, several};

/// What bodies there are in both languages; JSON says it to Python. Keys are in order, as PyYAML sorts them.
const BODIES: &str = r##"[null, true, 7, -3, 18446744073709551615, 2.5, 1e20, 1e-7, "", "hi", "yes", "No", "1e5", "0x10", "1:30", "a: b",
    "- x", "#", "~", "null", "ő ☃ 𝄞", "line\nbreak\ttab", "\u0000\u0085\u2028", "2020-01-01", "<<", "=", "!tag", " space ",
    [], {}, [1, ["two", null]], {"1": "text", "a": [1, 2.5, null, true], "b c": {"deep": "er"}}]"##;

fn bodies() -> Vec<Value> {
    match Format::Json.decode(BODIES.as_bytes()).unwrap() {
        Value::Seq(bodies) => bodies,
        other => panic!("{other}"),
    }
}

fn python(script: &str, args: &[&str]) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/python/bin/python");
    assert!(python.exists(), "no {}: `.ci/test` makes it", python.display());
    let mut command = Command::new(python);
    command.arg(root.join("interop/comm").join(script)).arg(Broker::shared().port.to_string()).args(args);
    command
}

/// A consumer on pika, ended with the test.
struct Pika {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Pika {
    fn consume(queue: &str) -> Self {
        let mut child = python("pika_consumer.py", &[queue]).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut pika = Self { child, lines };
        assert_eq!(pika.line(), "ready");
        pika
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("the consumer on pika has ended").unwrap()
    }
}

impl Drop for Pika {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Pushes or calls with all bodies; the lines that it prints.
fn produce(queue: &str, what: &str, bodies: &str) -> Vec<Value> {
    let mut child =
        python("pika_producer.py", &[queue, what]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(bodies.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "the producer on pika has failed");
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| Format::Json.decode(line.as_bytes()).unwrap()).collect()
}

async fn pika(queue: &'static str) -> (Pika, Config) {
    let conf = conf(queue).prefetch(several(5));
    (spawn_blocking(move || Pika::consume(queue)).await.unwrap(), conf)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_on_pika_answers_our_calls_as_its_own_kind() {
    let (_pika, conf) = pika("pika answers").await;
    let calls = RpcProducer::new(&conf).await.unwrap();
    for body in bodies() {
        assert_eq!(calls.push_message(body.clone()).await.unwrap(), body, "{body:?}");
    }
    let bytes = Value::Bytes((0..=255).collect());
    assert_eq!(calls.push_message(bytes.clone()).await.unwrap(), bytes);
    let code = |code: u32| Value::from([("code", code.into()), ("data", vec!["why".into()].into())]);
    let failed = |answer: Result<Value, CallError>| match answer {
        Err(CallError::Application(error)) => error,
        other => panic!("{other:?}"),
    };
    let critical = failed(calls.push_message(code(404)).await);
    assert_eq!(critical, ApplicationError::Critical { code: 404, data: vec!["why".into()].into() });
    let transient = failed(calls.push_message(code(503)).await);
    assert_eq!(transient, ApplicationError::Transient { code: 503, data: vec!["why".into()].into() });
    let raised = failed(calls.push_message(Value::from([("raise", "oh: no".into())])).await);
    assert_eq!(raised, ApplicationError::transient("builtins.ValueError: \"oh: no\""));
    assert!(matches!(calls.push_message(code(302)).await, Err(CallError::Communication(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_on_pika_gets_our_pushes_as_they_were_meant() {
    let (mut pika, conf) = pika("pika gets").await;
    let producer = AsynchronProducer::new(&conf).await.unwrap();
    for body in bodies() {
        producer.push_message(body).await.unwrap();
    }
    let got = spawn_blocking(move || bodies().iter().map(|_| pika.line()).collect::<Vec<_>>()).await.unwrap();
    let got: Vec<_> = got.iter().map(|line| Format::Json.decode(line.as_bytes()).unwrap()).collect();
    assert_eq!(got, bodies());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_on_pika_calls_ours_and_finds_results_and_errors() {
    let conf = conf("ours answers");
    let consuming = Consuming::begin(
        |request: Request| async move {
            match request.body.as_str() {
                Some("bad") => Err(ApplicationError::critical("never")),
                Some("panic") => panic!("as asked"),
                _ => Ok(request.body),
            }
        },
        &conf,
    )
    .await;
    let mut calls = BODIES.trim_end_matches(']').to_owned();
    calls.push_str(r#", "bad", "panic"]"#);
    let mut answers = spawn_blocking(move || produce("ours answers", "call", &calls)).await.unwrap();
    let errors = answers.split_off(bodies().len());
    let expected: Vec<Value> = bodies().into_iter().map(|body| vec!["result".into(), body].into()).collect();
    assert_eq!(answers, expected);
    let error = |text: &str| Value::from(vec!["error".into(), text.into()]);
    assert_eq!(errors, [error("400 never"), error("500 Internal Server Error")]);
    consuming.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_on_pika_pushes_and_ours_gets_it_as_it_was_meant() {
    let (processor, mut got) = collect();
    let consuming = Consuming::begin(processor, &conf("ours gets")).await;
    spawn_blocking(|| produce("ours gets", "push", BODIES)).await.unwrap();
    for body in bodies() {
        assert_eq!(got.recv().await.unwrap().body, body);
    }
    assert_eq!(consuming.stop().await.unreadable, 0);
}
