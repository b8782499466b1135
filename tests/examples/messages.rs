//! Pools, smart sockets, ducts and calls, between processes, a page in a browser, a Python and a broker.

use std::collections::BTreeSet;

use crate::beside::{chromium, tempdir};
use crate::broker::Broker;
use crate::{Running, example, said, script};

#[test]
fn a_pool_that_listens_and_one_that_connects() {
    let told = said(&mut example("pool"));
    assert!(told.starts_with("No one expects the Spanish Inquisition!\n"), "{told}");
    assert_eq!(told.lines().count(), 7, "two members answer with three each: {told}");
}

#[test]
fn a_pool_with_a_page_in_a_browser() {
    let mut site = Running::start(example("pool_page").arg("127.0.0.1:0"));
    let url = site.line();
    let _browser = chromium(&tempdir("pool-page"), &url);
    let heard = BTreeSet::from([site.line(), site.line()]);
    let expected = ["the page has heard: who is there?", "the page says: hello from the page"];
    assert_eq!(heard, expected.map(str::to_owned).into());
}

#[test]
fn workers_share_the_work() {
    let mut boss = Running::start(example("workers").args(["boss", "127.0.0.1:0", "40", "4"]));
    let at = boss.line();
    let _workers: Vec<Running> = (0..4).map(|_| Running::start(example("workers").args(["worker", &at]))).collect();
    let done = boss.end();
    let results: BTreeSet<&str> = done.lines().map(|line| line.split_once(": ").unwrap().1).collect();
    assert!(results.len() == 40 && results.contains("39 squared is 1521"), "{done}");
    let mut each = std::collections::BTreeMap::new();
    done.lines().for_each(|line| *each.entry(line.split_once(": ").unwrap().0).or_insert(0) += 1);
    assert!(each.len() == 4 && each.values().all(|jobs| *jobs == 10), "in turn: {each:?}");
}

#[test]
fn a_pipeline_loses_nothing_when_a_stage_is_killed() {
    let mut sink = Running::start(example("pipeline").args(["sink", "127.0.0.1:0", "300"]));
    let to = sink.line();
    let mut source = Running::start(example("pipeline").args(["source", "127.0.0.1:0", "300"]));
    let from = source.line();
    let stage = || Running::start(example("pipeline").args(["stage", &from, &to]));
    let mut stages = [stage(), stage()];
    let mut come = BTreeSet::new();
    for kill in 0..6 {
        (0..20).for_each(|_| assert!(come.insert(sink.line())));
        // Dropped, it is killed in the middle of its work.
        stages[kill % 2] = stage();
    }
    come.extend(sink.end().lines().map(str::to_owned));
    assert_eq!(come, (0..300).map(|number: u32| number.to_string()).collect());
    source.end();
}

#[test]
fn a_duct_to_a_python_child() {
    let told = said(example("duct_python").arg(script("duct/child.py")));
    assert_eq!(told, "\"hello\"\n{\"numbers\":[1,2.5,null],\"ok\":true}\nexit status: 0\n");
}

#[test]
fn a_producer_a_call_and_a_consumer_in_one_process() {
    let told = said(&mut example("comm"));
    assert!(told.starts_with("TEST MESSAGE\n") && told.contains("text is wanted"), "{told}");
}

#[test]
fn a_procedure_behind_rabbitmq() {
    let broker = Broker::shared();
    let conf = tempdir("rpc").join("conf.yaml");
    let text = format!(
        "protocol: amqp\nhost: 127.0.0.1\nport: {}\nvhost: test\nuser: test\npassword: test\nqueue: shout\n",
        broker.port
    );
    std::fs::write(&conf, text).unwrap();
    let mut serving = Running::start(example("rpc_rabbitmq").arg("serve").arg(&conf));
    assert_eq!(serving.line(), "serving");
    let call = |text: &str| said(example("rpc_rabbitmq").arg("call").arg(&conf).arg(text));
    assert_eq!(call("hello"), "HELLO\n");
    assert!(call("").contains("there is nothing to shout"));
}

#[test]
fn a_smart_socket_sends_and_another_receives() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let agent =
        |flags: &[&str]| Running::start(example("smart_agent").args(["--port", &free, "--count", "3"]).args(flags));
    let sink = agent(&["--role", "bind", "--behavior", "sink"]);
    let source = agent(&["--behavior", "source", "--prefix", "hello-"]);
    assert_eq!(sink.end(), "hello-0\nhello-1\nhello-2\n");
    source.end();
}
