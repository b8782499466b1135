//! `natpipe mq push|call|consume`.

use std::num::NonZeroU16;
use std::pin::pin;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use natpipe::comm::{
    ApplicationError, AsynchronProducer, Cancel, Config, EventDrivenConsumer, Format, Request, Response, RpcProducer,
    Tally, Value,
};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::mpsc;

use crate::args::{MqArgs, MqCommand};
use crate::ends::{Signal, Signals, Stopped};
use crate::output::{self, say};

/// What a command may print as its answer, in bytes.
const MOST: u64 = 16 << 20;
/// The exit status (EX_DATAERR of sysexits.h) with which a command says that this body will never do.
const NEVER: i32 = 65;

pub async fn run(command: MqCommand, json: bool) -> Result<()> {
    match command {
        MqCommand::Push { to, body } => push(&conf(&to)?, body).await,
        MqCommand::Call { to, body } => call(&conf(&to)?, body, json).await,
        MqCommand::Consume { from, exec, count } => consume(conf(&from)?, exec, count, json).await,
    }
}

fn conf(args: &MqArgs) -> Result<Config> {
    let mut conf = match (&args.url, &args.config) {
        (Some(url), _) => Config::from_url(url)?,
        (None, Some(file)) => {
            let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            let toml = file.extension().is_some_and(|extension| extension == "toml");
            if toml { Config::from_toml(&text)? } else { Config::from_yaml(&text)? }
        }
        (None, None) => Config::default(),
    };
    if let Some(queue) = &args.queue {
        conf = conf.with("queue", &queue.as_str().into())?;
    }
    for (key, value) in &args.set {
        let value = Format::Yaml.decode(value.as_bytes()).with_context(|| format!("the value of {key}"))?;
        conf = conf.with(key, &value)?;
    }
    Ok(conf)
}

/// The body that was given, or else all of standard input.
async fn body(conf: &Config, given: Option<String>) -> Result<Value> {
    let bytes = match given {
        Some(text) => text.into_bytes(),
        None => {
            let mut bytes = Vec::new();
            tokio::io::stdin().read_to_end(&mut bytes).await.context("cannot read the body from standard input")?;
            bytes
        }
    };
    // MessagePack is nothing to type: it is written as YAML and converted.
    let written = if conf.body_format() == Format::MessagePack { Format::Yaml } else { conf.body_format() };
    Ok(written.decode(&bytes)?)
}

async fn push(conf: &Config, given: Option<String>) -> Result<()> {
    let body = body(conf, given).await?;
    let producer = AsynchronProducer::new(conf).await?;
    producer.push_message(body).await?;
    producer.close().await;
    Ok(())
}

async fn call(conf: &Config, given: Option<String>, json: bool) -> Result<()> {
    let body = body(conf, given).await?;
    let producer = RpcProducer::new(conf).await?;
    let answer = producer.push_message(body).await?;
    producer.close().await;
    let mut bytes = shown(&answer, json)?;
    if !matches!(answer, Value::Bytes(_)) || json {
        bytes.push(b'\n');
    }
    Ok(output::bytes(&bytes)?)
}

/// A value as programs in a shell take it: text and bytes as they are, anything else as YAML on one line; or as JSON.
fn shown(value: &Value, json: bool) -> Result<Vec<u8>> {
    Ok(match value {
        _ if json => serde_json::to_vec(value).context("it has no form in JSON")?,
        Value::Str(text) => text.clone().into_bytes(),
        Value::Bytes(bytes) => bytes.clone(),
        other => other.to_string().into_bytes(),
    })
}

/// The same with no line end in it.
fn line(value: &Value, json: bool) -> Result<Vec<u8>> {
    let mut line = match value {
        Value::Str(text) if text.contains('\n') && !json => value.to_string().into_bytes(),
        _ => shown(value, json)?,
    };
    line.push(b'\n');
    Ok(line)
}

/// What the processor of messages shares with who waits for its end.
struct Work {
    exec: Option<String>,
    json: bool,
    /// Messages that are still wanted.
    left: AtomicU64,
    cancel: Cancel,
    /// Why nothing more is printed; who comes first is heard.
    failed: mpsc::Sender<anyhow::Error>,
}

async fn consume(conf: Config, exec: Option<String>, count: Option<u64>, json: bool) -> Result<()> {
    let mut signals = Signals::new()?;
    // Whoever wants so many takes no more: what is taken would have to be answered.
    let conf = if count.is_some() { conf.concurrency(NonZeroU16::MIN) } else { conf };
    let (failed, mut failure) = mpsc::channel(1);
    let left = AtomicU64::new(count.unwrap_or(u64::MAX));
    let work = Arc::new(Work { exec, json, left, cancel: Cancel::new(), failed });
    let processing = work.clone();
    let processor = move |request: Request| {
        let work = processing.clone();
        async move { work.process(request).await }
    };
    let consumer = EventDrivenConsumer::new(processor, &conf).await?.cancel_event(work.cancel.clone());
    say(json, format_args!("consuming {consumer:?}"), &json!({"event": "consuming"}));
    let (tally, stopped) = to_its_end(consumer, &mut signals, &work.cancel).await?;
    let event = json!({"event": "done", "processed": tally.processed, "answered": tally.answered, "dead": tally.dead});
    say(json, format_args!("{} messages", tally.processed), &event);
    if let Ok(error) = failure.try_recv() {
        return Err(error);
    }
    match stopped {
        Some(signal) if count.is_some() && work.left.load(Ordering::SeqCst) > 0 => Err(Stopped(signal).into()),
        _ => Ok(()),
    }
}

/// What a consumer has done when it ends, and the signal that has stopped it, if one has: it finishes what it has in hand. A second
/// signal cuts that off.
async fn to_its_end(
    consumer: EventDrivenConsumer,
    signals: &mut Signals,
    cancel: &Cancel,
) -> Result<(Tally, Option<Signal>)> {
    let mut consuming = pin!(consumer.start_consuming());
    let mut stopped = None;
    loop {
        tokio::select! {
            biased;
            tally = &mut consuming => return Ok((tally?, stopped)),
            signal = signals.next() => {
                if stopped.replace(signal).is_some() {
                    return Err(Stopped(signal).into());
                }
                cancel.cancel();
            }
        }
    }
}

impl Work {
    async fn process(&self, request: Request) -> Response {
        let response = match &self.exec {
            Some(command) => carry_out(command, &request, self.json).await,
            None => self.print(&request),
        };
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.cancel.cancel();
        }
        response
    }

    /// What can not be printed is for somebody else, and the end of it here.
    fn print(&self, request: &Request) -> Response {
        let written = line(&request.body, self.json).and_then(|line| Ok(output::bytes(&line)?));
        let Err(error) = written else { return Response::ok(()) };
        let _ = self.failed.try_send(error);
        self.cancel.cancel();
        Response::new(503, "it can not be printed").not_final()
    }
}

async fn carry_out(command: &str, request: &Request, json: bool) -> Response {
    match output_of(command, request, json).await {
        Ok((Some(0), out, _)) => Response::ok(answer(out)),
        Ok((Some(NEVER), _, said)) => Response::new(400, said),
        Ok((_, _, said)) => Response::new(500, said),
        Err(error) => Response::new(500, format!("{error:#}")),
    }
}

/// What a command printed, as text where it is text, without its last line end.
fn answer(mut out: Vec<u8>) -> Value {
    if out.last() == Some(&b'\n') {
        out.pop();
    }
    String::from_utf8(out).map_or_else(|error| Value::Bytes(error.into_bytes()), Value::Str)
}

/// A command's exit status, output, and what it said on standard error.
async fn output_of(command: &str, request: &Request, json: bool) -> Result<(Option<i32>, Vec<u8>, String)> {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", command]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    // Ctrl-C in a terminal is for us: what is in hand is finished.
    #[cfg(unix)]
    shell.process_group(0);
    let mut child = shell.spawn().context("cannot run a shell")?;
    let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let body = shown(&request.body, json)?;
    let feed = async {
        if let Some(mut input) = input {
            // A command need not read its input.
            let _ = input.write_all(&body).await;
        }
    };
    let ((), out, said) = tokio::join!(feed, read(output), read(errors));
    let status = child.wait().await.context("the command is lost")?;
    let said = String::from_utf8_lossy(&said?).trim().to_owned();
    Ok((status.code(), out?, if said.is_empty() { status.to_string() } else { said }))
}

async fn read(from: Option<impl AsyncReadExt + Unpin>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        from.take(MOST + 1).read_to_end(&mut bytes).await.context("the command's output is lost")?;
    }
    if bytes.len() as u64 > MOST {
        return Err(ApplicationError::transient("the command printed more than 16 MiB").into());
    }
    Ok(bytes)
}
