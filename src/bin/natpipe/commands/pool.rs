//! `natpipe pool`: a pool from the shell, which answers, or asks once.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use natpipe::pool::{Answer, Answers, Context, Event, Meta, Packed, Pool, PoolConf, Router, Target, Value};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::args::{AnswerWith, Call, PoolArgs, PoolRole};
use crate::output::{self, say};

pub async fn run(role: PoolRole, json: bool) -> Result<()> {
    let (binds, args) = match role {
        PoolRole::Bind(args) => (true, args),
        PoolRole::Client(args) => (false, args),
    };
    anyhow::ensure!(!args.addrs.is_empty() || args.unix.is_some(), "give an address, or a path with --unix");
    let meta: Meta = args.meta.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
    let answer = args.answer.clone();
    let router = Router::new(move |_: Context, msg: Packed| answered(answer.clone(), msg));
    let pool = Pool::with("natpipe", PoolConf::default().meta(meta), router);
    let events = tell_events(pool.events(), json);
    let talking = async {
        if binds {
            bind(&pool, &args, json).await?
        } else {
            connect(&pool, &args)?
        }
        match args.call {
            Some(call) => ask(&pool, call, &args, json).await,
            None => std::future::pending().await,
        }
    };
    let done = tokio::select! {
        done = talking => done,
        never = events => never,
    };
    pool.close().await;
    done
}

async fn bind(pool: &Pool, args: &PoolArgs, json: bool) -> Result<()> {
    let unix = args.unix.iter().map(|path| pool.bind_unix(path));
    for mut binding in args.addrs.iter().map(|addr| pool.bind(addr.as_str())).chain(unix) {
        if let Some(token) = &args.token {
            binding = binding.bearer(token);
        }
        let bound = binding.await?;
        let (local, url) = (bound.local_addr().to_string(), bound.url().to_owned());
        say(json, format_args!("listening at {url}"), &json!({"event": "listening", "local": local, "url": url}));
    }
    Ok(())
}

fn connect(pool: &Pool, args: &PoolArgs) -> Result<()> {
    let unix = args.unix.iter().map(|path| pool.client_unix(path));
    for mut client in args.addrs.iter().map(|addr| pool.client(addr)).chain(unix) {
        if let Some(token) = &args.token {
            client = client.bearer(token);
        }
        client.start()?;
    }
    Ok(())
}

/// Says who comes and goes, for ever.
async fn tell_events(mut events: natpipe::pool::Events, json: bool) -> Result<()> {
    while let Some(event) = events.next().await {
        let (sentence, event) = match event {
            Event::Joined(con) => {
                (format!("{} joined", con.id()), json!({"event": "joined", "con": con.id().to_string()}))
            }
            Event::Left(con, left) => {
                let why = left.to_string();
                (format!("{} left: {why}", con.id()), json!({"event": "left", "con": con.id().to_string(), "why": why}))
            }
            Event::Retrying { dest, why } => {
                (format!("{dest}: {why}; trying again"), json!({"event": "retrying", "dest": dest, "why": why}))
            }
            Event::Refused { why } => (format!("refused: {why}"), json!({"event": "refused", "why": why})),
            _ => continue,
        };
        say(json, sentence, &event);
    }
    std::future::pending().await
}

/// Waits for a member that can be asked, asks, and prints each answer as a line.
async fn ask(pool: &Pool, call: Call, args: &PoolArgs, json: bool) -> Result<()> {
    let text = args.message.as_deref().context("--call needs a --message")?;
    let msg: serde_json::Value =
        serde_json::from_str(text).with_context(|| format!("--message {text:?} is no JSON"))?;
    let limit = Duration::from_secs_f64(args.timeout);
    let asking = tokio::time::timeout(limit, begin(pool, call, &msg, args, limit)).await;
    let mut answers = asking.map_err(|_| anyhow::anyhow!("no member within {limit:?}; is one listening there?"))??;
    let mut failed = None;
    while let Some(reply) = answers.next().await {
        match reply {
            Ok(reply) => output::json(&reply.msg.get::<serde_json::Value>().or_else(|_| plain(&reply.msg))?)?,
            Err(error) => {
                say(json, format_args!("natpipe: {error}"), &json!({"event": "error", "why": error.to_string()}));
                failed = Some(error);
            }
        }
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}

async fn begin(pool: &Pool, call: Call, msg: &serde_json::Value, args: &PoolArgs, limit: Duration) -> Result<Answers> {
    let mut events = pool.events();
    pool.joined(1).await;
    let asking = match call {
        Call::Rand => pool.rand(msg),
        Call::Publish => pool.publish(msg),
        Call::Avail => pool.avail(msg),
        Call::Target => {
            let (key, pattern) = args.target.as_ref().context("--call target needs --target KEY=GLOB")?;
            let target = Target::glob(key, pattern)?;
            while !pool.members().iter().any(|member| target.matches(&member.meta())) {
                events.next().await;
            }
            pool.target(target, msg)
        }
    };
    Ok(asking.deadline(limit).answers().await?)
}

/// What JSON has no word for: bytes as numbers, keys as text.
fn plain(packed: &Packed) -> Result<serde_json::Value> {
    fn json(value: &Value) -> serde_json::Value {
        match value {
            Value::Binary(bytes) => bytes.as_slice().into(),
            Value::Array(items) => items.iter().map(json).collect(),
            Value::Map(pairs) => {
                let key = |key: &Value| key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                serde_json::Value::Object(pairs.iter().map(|(k, v)| (key(k), json(v))).collect())
            }
            Value::Ext(kind, bytes) => json!({"ext": kind, "bytes": bytes}),
            other => serde_json::to_value(other).unwrap_or_else(|_| other.to_string().into()),
        }
    }
    Ok(json(&packed.value()?))
}

async fn answered(with: AnswerWith, msg: Packed) -> Answer {
    match with {
        AnswerWith::Echo => Answer::one(msg),
        AnswerWith::Exec(command) => Answer::from(exec(&command, &msg).await),
    }
}

/// Runs a command with the message as JSON on its standard input; each line that it writes is an answer.
async fn exec(command: &str, msg: &Packed) -> Result<Answer> {
    let message = serde_json::to_vec(&plain(msg)?)?;
    let mut running = Command::new("sh");
    running.args(["-c", command]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = running.spawn().context("the command can not be run")?;
    let mut input = child.stdin.take().context("no standard input")?;
    let lines = BufReader::new(child.stdout.take().context("no standard output")?).lines();
    // Beside the reading: a command may answer before it has read everything. It ends with the command.
    tokio::spawn(async move {
        // A command that does not read its input is no failure.
        let _taken = input.write_all(&message).await.is_ok() && input.write_all(b"\n").await.is_ok();
    });
    Ok(Answer::stream_of(futures_util::stream::unfold(Some((child, lines)), next_line)))
}

type Running = Option<(Child, Lines<BufReader<ChildStdout>>)>;

async fn next_line(running: Running) -> Option<(Result<serde_json::Value, String>, Running)> {
    let (mut child, mut lines) = running?;
    match lines.next_line().await {
        Ok(Some(line)) => {
            let value = serde_json::from_str(&line).unwrap_or_else(|_| line.into());
            Some((Ok(value), Some((child, lines))))
        }
        Ok(None) => match child.wait().await {
            Ok(status) if status.success() => None,
            Ok(status) => Some((Err(format!("the command failed: {status}")), None)),
            Err(error) => Some((Err(error.to_string()), None)),
        },
        Err(error) => Some((Err(error.to_string()), None)),
    }
}
