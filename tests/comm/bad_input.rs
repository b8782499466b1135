//! What a broker may be told and what may come from one: wrong, hostile, or gone.

use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection};
use natpipe::comm::{
    AsynchronProducer, CallError, CommunicationError, ConfigError, EventDrivenConsumer, Request, RpcProducer,
};

use crate::amqp::{collect, conf, of};
use crate::broker::Broker;
use crate::{Consuming, several};

async fn channel() -> (Connection, Channel) {
    let connection = Connection::connect(&Broker::shared().url(), Default::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

async fn publish(channel: &Channel, queue: &str, body: &[u8], properties: BasicProperties) {
    let sent = channel.basic_publish("".into(), queue.into(), BasicPublishOptions::default(), body, properties);
    sent.await.unwrap().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_and_an_absent_virtual_host_are_told_apart() {
    let right = of(Broker::shared()).queue("q");
    let error = AsynchronProducer::new(&right.clone().password("wrong")).await.unwrap_err();
    assert!(matches!(&error, CommunicationError::Credentials { user, .. } if user == "test"), "{error}");
    assert!(!error.to_string().contains("wrong"), "the password shows: {error}");
    let error = RpcProducer::new(&right.clone().vhost("absent")).await.unwrap_err();
    assert!(matches!(&error, CommunicationError::Vhost { vhost, .. } if vhost == "absent"), "{error}");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = EventDrivenConsumer::new(|_: Request| async {}, &right.clone().port(free)).await.unwrap_err();
    assert!(matches!(&error, CommunicationError::Connect { .. }), "{error}");
    for (key, lacks) in
        [("host", natpipe::comm::Config::new("amqp")), ("vhost", natpipe::comm::Config::new("amqp").host("h"))]
    {
        let error = AsynchronProducer::new(&lacks).await.unwrap_err();
        assert!(
            matches!(&error, CommunicationError::Config(ConfigError::Missing { key: k, .. }) if *k == key),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_with_other_properties_is_an_error_that_says_so() {
    let here = conf("other properties");
    let _declared = AsynchronProducer::new(&here).await.unwrap();
    let other = here.clone().auto_delete(true);
    let error = EventDrivenConsumer::new(|_: Request| async {}, &other).await.unwrap_err();
    let named = matches!(&error, CommunicationError::QueueDiffers { queue, why } if queue == "other properties" && why.contains("auto_delete"));
    assert!(named, "{error}");
    // A producer meets it with its first message to that queue, and can still push elsewhere.
    let producer = AsynchronProducer::new(&other.clone().queue("elsewhere")).await.unwrap();
    let error = producer.push_message_to("other properties", 1).await.unwrap_err();
    assert!(matches!(error, CommunicationError::QueueDiffers { .. }), "{error}");
    producer.push_message(1).await.unwrap();
    let error = producer.push_message_to(&"k".repeat(300), 1).await.unwrap_err();
    assert!(matches!(error, CommunicationError::Config(ConfigError::Invalid { .. })), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_bodies_are_buried_unread_and_the_consumer_lives() {
    let conf = conf("hostile").dead_letter("hostile: graves").prefetch(several(5));
    let (processor, mut got) = collect();
    let consuming = Consuming::begin(processor, &conf).await;
    let (_connection, channel) = channel().await;
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (this, last) in ('b'..='i').zip('a'..) {
        bomb.push_str(&format!("{this}: &{this} [{}]\n", vec![format!("*{last}"); 9].join(", ")));
    }
    let nested = "[".repeat(100_000);
    let hostile: [&[u8]; 6] = [
        &b"{no yaml"[..],
        b"\xff\xfe\xfd",
        bomb.as_bytes(),
        b"!!python/object/apply:os.system ['touch /tmp/natpipe-was-here']",
        nested.as_bytes(),
        b"!!python/object/new:os.system [x]",
    ];
    for body in hostile {
        publish(&channel, "hostile", body, BasicProperties::default()).await;
    }
    // One that says it is something else than it is, and headers that mean nothing.
    let mut headers = FieldTable::default();
    headers.insert("x-natpipe-tries".into(), AMQPValue::LongLongInt(-7));
    headers.insert("http_code".into(), AMQPValue::Boolean(true));
    let lies = BasicProperties::default().with_content_type("application/json".into()).with_headers(headers);
    publish(&channel, "hostile", b"not: json", lies).await;
    publish(&channel, "hostile", b"good\n...\n", BasicProperties::default()).await;
    assert_eq!(got.recv().await.unwrap().body, "good".into());
    let (digger, mut graves) = collect();
    let raw = conf.clone().queue("hostile: graves").format(natpipe::comm::Format::Raw);
    let digging = Consuming::begin(digger, &raw).await;
    let mut dead = Vec::new();
    for _ in 0..6 {
        dead.push(graves.recv().await.unwrap().raw);
    }
    assert!(hostile.iter().all(|body| dead.iter().any(|found| found == body)));
    let tally = consuming.stop().await;
    assert_eq!((tally.processed, tally.unreadable, tally.dead), (1, 7, 7));
    digging.stop().await;
    assert!(!std::path::Path::new("/tmp/natpipe-was-here").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_with_a_hostile_body_is_told_and_is_not_carried_out() {
    let conf = conf("hostile calls");
    let consuming = Consuming::begin(|_: Request| async { "carried out" }, &conf).await;
    let (_connection, channel) = channel().await;
    let exclusive = lapin::options::QueueDeclareOptions { exclusive: true, ..Default::default() };
    let queue = channel.queue_declare("".into(), exclusive, FieldTable::default()).await.unwrap();
    let ours = BasicProperties::default().with_reply_to(queue.name().clone()).with_correlation_id("7".into());
    publish(&channel, "hostile calls", b"!!python/object/apply:os.getpid []", ours).await;
    let answer = loop {
        let got = channel.basic_get(queue.name().clone(), Default::default()).await.unwrap();
        match got {
            Some(answer) => break answer,
            None => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    };
    let text = String::from_utf8(answer.delivery.data).unwrap();
    assert!(text.contains("http_code: 400") && text.contains("python/object/apply:os.getpid"), "{text}");
    assert_eq!(answer.delivery.properties.correlation_id().as_ref().unwrap().as_str(), "7");
    assert_eq!(consuming.stop().await.processed, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_strange_or_unknown_are_ignored_or_errors() {
    let conf = conf("strange answers");
    let (_connection, channel) = channel().await;
    let calls = RpcProducer::new(&conf).await.unwrap();
    let answers: [(&[u8], &str); 5] = [
        (b"{http_code: 200, data: fine}", "fine"),
        (b"42", "no answer"),
        (b"!!python/object/apply:os.getpid []", "builds none"),
        (b"{http_code: 307, data: x}", "307"),
        (b"{http_code: [}", "no YAML"),
    ];
    for (body, expected) in answers {
        let call = calls.push_message("question");
        let answer = async {
            let question = loop {
                match channel.basic_get("strange answers".into(), Default::default()).await.unwrap() {
                    Some(question) => break question.delivery,
                    None => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
                }
            };
            question.acker.ack(Default::default()).await.unwrap();
            let reply_to = question.properties.reply_to().clone().unwrap();
            let id = question.properties.correlation_id().clone().unwrap();
            // Before the answer come one without an id, one to nobody, and rubbish.
            for strange in [None, Some("nobody's")] {
                let mut properties = BasicProperties::default();
                if let Some(id) = strange {
                    properties = properties.with_correlation_id(id.into());
                }
                publish(&channel, reply_to.as_str(), b"{http_code: 200, data: wrong}", properties).await;
            }
            publish(&channel, reply_to.as_str(), body, BasicProperties::default().with_correlation_id(id)).await;
        };
        let (answer, ()) = tokio::join!(call, answer);
        match answer {
            Ok(value) => assert_eq!(value, expected.into()),
            Err(CallError::Communication(error)) => assert!(error.to_string().contains(expected), "{error}"),
            Err(other) => panic!("{other}"),
        }
    }
}
