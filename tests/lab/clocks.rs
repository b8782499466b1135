//! Two homes whose clocks are minutes apart: both the time of day, which the C library is made to tell otherwise, and the clock that
//! timers go by, which the kernel sets off in a time namespace. `NATPIPE_RUNS` says how often.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use natpipe::lab::{Host, Internet, Kind, Link};
use serde_json::Value;

use super::punch::{Middle, middle};

/// Seconds that an end's clocks are off: the time of day, and the one that only goes on.
type Skew = (i64, i64);

/// Minutes apart, in both clocks, either way round.
const SKEWS: [[Skew; 2]; 2] = [[(431, 300), (-187, 0)], [(-600, 0), (0, 777)]];

/// The time of day of a program is off by `SKEW` seconds.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long skew(void) {
    const char *said = getenv("SKEW");
    return said ? atol(said) : 0;
}

int clock_gettime(clockid_t id, struct timespec *at) {
    int done = syscall(SYS_clock_gettime, id, at);
    if (done == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) at->tv_sec += skew();
    return done;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    (void)zone;
    struct timespec now;
    int done = clock_gettime(CLOCK_REALTIME, &now);
    if (done == 0) at->tv_sec = now.tv_sec, at->tv_usec = now.tv_nsec / 1000;
    return done;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"#;

fn shim() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
    std::fs::write(&source, SHIM).unwrap();
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &source]).status();
    assert!(built.expect("a C compiler").success());
    library
}

/// A command under clocks that are off.
fn skewed(program: &str, shim: &Path, (day, since): Skew) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--time", "--monotonic", &since.to_string(), "--boottime", &since.to_string(), program]);
    command.env("LD_PRELOAD", shim).env("SKEW", day.to_string());
    command
}

/// What `date` and the kernel tell under such clocks, in seconds.
fn told(host: &Host, shim: &Path, skew: Skew) -> [f64; 2] {
    let mut command = skewed("python3", shim, skew);
    command.args(["-c", "import time; print(time.time(), time.monotonic())"]);
    let out = host.output(&mut command).unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    let mut clocks = text.split_whitespace().map(|clock| clock.parse().unwrap());
    [clocks.next().unwrap(), clocks.next().unwrap()]
}

/// Both ends punch and say a word each; true when both heard it.
fn meet(middle: &Middle, hosts: [&Host; 2], shim: &Path, skews: [Skew; 2], proto: &str) -> Result<[f64; 2], String> {
    let ends = [0, 1].map(|end| {
        let mut command = skewed(env!("CARGO_BIN_EXE_natpipe"), shim, skews[end]);
        command.args(["punch", "--json", "--no-port-mapping", "--wait", "20", "--proto", proto]);
        command.arg("--through").arg(format!("tcp:{}", middle.doors[end]));
        command.args(middle.stun.iter().flat_map(|server| ["--stun".to_owned(), server.to_string()]));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        hosts[end].start(&mut command).unwrap()
    });
    let outs = ends.map(|mut end| {
        end.stdin.take().unwrap().write_all(b"here").unwrap();
        end
    });
    let mut took = [0.0; 2];
    for (end, out) in outs.map(|end| end.wait_with_output().unwrap()).into_iter().enumerate() {
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        if out.stdout != b"here" || !out.status.success() {
            return Err(said);
        }
        let events = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let punched = events.into_iter().find(|event| event["event"] == "punched").ok_or_else(|| said.clone())?;
        took[end] = punched["total_ms"].as_f64().ok_or(said)?;
    }
    Ok(took)
}

#[test]
fn two_homes_meet_whatever_their_clocks_say() {
    // One of a few may be lost.
    let (shim, runs) = (shim(), super::report::runs().max(2));
    let cells = [
        ("udp", 0, 0.05),
        ("udp", 20, 0.05),
        ("udp", 100, 0.05),
        ("tcp", 0, 0.02),
        ("tcp", 20, 0.02),
        ("tcp", 100, 0.02),
    ];
    for (proto, delay, loss) in cells {
        let link = Link { loss, ..Link::steady(Duration::from_millis(delay)) };
        let internet = Internet::with_link(link, 3).unwrap();
        let middle = middle(&internet);
        let (a, b) = (internet.behind(Kind::Home).unwrap(), internet.behind(Kind::Home).unwrap());
        let [off, right] = [SKEWS[0][0], (0, 0)].map(|skew| told(&a, &shim, skew));
        assert!(
            (off[0] - right[0] - 431.0).abs() < 60.0 && (off[1] - right[1] - 300.0).abs() < 60.0,
            "{off:?} {right:?}"
        );
        let mut met = Vec::new();
        for run in 0..runs {
            match meet(&middle, [&a, &b], &shim, SKEWS[run % SKEWS.len()], proto) {
                Ok(took) => met.push(took[0].max(took[1])),
                Err(said) => println!("{proto}, {delay} ms, {loss}: {said}"),
            }
        }
        met.sort_by(f64::total_cmp);
        println!("{proto}, {delay} ms, {loss} lost: {} of {runs}, {:?} ms", met.len(), met.get(met.len() / 2));
        let missed = runs - met.len();
        assert!(missed <= (runs / 50).max(usize::from(runs < 20)), "{proto} at {delay} ms: {} of {runs}", met.len());
    }
}
