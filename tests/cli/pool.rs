//! `natpipe pool`.

use std::path::PathBuf;
use std::time::Duration;

use natpipe::pool::{Context, Packed, Pool};

use crate::{Running, run, text};

#[test]
fn a_pool_that_stays_is_asked_by_one_that_asks_and_ends() {
    let worker = Running::listening(&["pool", "bind", "127.0.0.1:0", "--meta", "role=db"]);
    for call in ["rand", "publish", "avail"] {
        let asked = run(&["pool", "client", &worker.local, "--call", call, "--message", r#"{"a":[1,"é",null]}"#]);
        assert_eq!(text(&asked.stdout), "{\"a\":[1,\"é\",null]}\n", "{}", text(&asked.stderr));
        assert!(asked.status.success());
    }
    let target = ["--call", "target", "--target", "role=d*", "--message", "5"];
    let asked = run(&[&["pool", "client", &worker.local][..], &target].concat());
    assert_eq!((text(&asked.stdout).as_str(), asked.status.code()), ("5\n", Some(0)), "{}", text(&asked.stderr));
}

#[test]
fn a_command_answers_with_each_line_and_its_failure_is_the_askers() {
    let worker = Running::listening(&["pool", "bind", "127.0.0.1:0", "--answer", "exec:cat; echo two; echo '[3]'"]);
    let asked = run(&["pool", "client", &worker.local, "--call", "rand", "--message", r#"{"n":1}"#]);
    assert_eq!(text(&asked.stdout), "{\"n\":1}\n\"two\"\n[3]\n", "{}", text(&asked.stderr));
    let worker = Running::listening(&["pool", "bind", "127.0.0.1:0", "--answer", "exec:exit 3"]);
    let asked = run(&["pool", "client", &worker.local, "--call", "rand", "--message", "1"]);
    assert_eq!(asked.status.code(), Some(1));
    assert!(text(&asked.stderr).contains("exit status: 3"), "{}", text(&asked.stderr));
}

#[test]
fn a_command_may_answer_before_it_has_read_everything() {
    let worker = Running::listening(&["pool", "bind", "127.0.0.1:0", "--answer", "exec:cat"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let pool = Pool::create("asker", |_: Context, msg: Packed| async move { msg });
        pool.client(&worker.local).await.unwrap();
        // More than fits into the pipes to the command and from it.
        let message = "x".repeat(1 << 20);
        let asking = pool.rand(message.as_str()).deadline(Duration::from_secs(20));
        assert!(asking.await.unwrap().get::<String>().unwrap() == message);
    });
}

#[test]
fn who_listens_can_ask_too_and_over_a_unix_socket() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("pool-cli-{}", std::process::id()));
    let path = path.to_str().unwrap().to_owned();
    let worker = Running::listening(&["pool", "bind", "--unix", &path]);
    let asked = run(&["pool", "client", "--unix", &path, "--call", "rand", "--message", "\"over unix\""]);
    assert_eq!(text(&asked.stdout), "\"over unix\"\n", "{}", text(&asked.stderr));
    drop(worker);
}

#[test]
fn a_token_lets_in_and_without_it_nobody_is_found() {
    let worker = Running::listening(&["pool", "bind", "127.0.0.1:0", "--token", "t0k"]);
    let ask = ["--call", "rand", "--message", "1", "--timeout"];
    let right = run(&[&["pool", "client", &worker.local, "--token", "t0k"][..], &ask, &["30"]].concat());
    assert_eq!(text(&right.stdout), "1\n", "{}", text(&right.stderr));
    let wrong = run(&[&["pool", "client", &worker.local][..], &ask, &["1"]].concat());
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong.stderr).contains("401"), "{}", text(&wrong.stderr));
    assert!(text(&wrong.stderr).contains("no member within 1s"), "{}", text(&wrong.stderr));
}

#[test]
fn what_is_no_pool_is_wrong_usage_or_an_error() {
    assert_eq!(run(&["pool", "bind", "127.0.0.1:0", "--answer", "x"]).status.code(), Some(2));
    assert_eq!(run(&["pool", "client", "x:1", "--call", "rand"]).status.code(), Some(2));
    let ignored = ["pool", "client", "x:1", "--call", "rand", "--target", "a=b", "--message", "1"];
    assert_eq!(run(&ignored).status.code(), Some(2));
    for wrong in [&["pool", "bind"][..], &["pool", "client", "http://x"]] {
        let output = run(wrong);
        assert_eq!(output.status.code(), Some(1), "{wrong:?}");
    }
}
