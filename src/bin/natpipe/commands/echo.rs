//! `natpipe echo`.

use anyhow::Result;
use natpipe::{NetConf, Pipe};
use serde_json::json;

use crate::output::say;
use crate::spec::Spec;

pub async fn run(spec: Spec, json: bool) -> Result<()> {
    let pipe = spec.open(NetConf::default()).await?;
    let id = pipe.add_msg_cb(|data, _, pipe: Pipe| async move {
        if let Err(error) = pipe.send(data).await {
            tracing::debug!(%error, "not echoed");
        }
    });
    let local = pipe.local_addr().to_string();
    if spec.listens() {
        say(json, format_args!("echoing at {local}"), &json!({"event": "listening", "local": local}));
    }
    let end = pipe.ended().await;
    pipe.del_msg_cb(id);
    pipe.close().await;
    match end {
        natpipe::End::Broken(kind) => Err(anyhow::anyhow!("{spec} broke: {kind}")),
        _ => Ok(()),
    }
}
