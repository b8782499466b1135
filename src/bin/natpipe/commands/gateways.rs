//! What the gateways offer, as `natpipe nat` shows it.

use anyhow::Result;
use natpipe::portmap::{Failure, Offer, Offers, Protocol, can_help, offers};
use natpipe::{Family, Interface, Route};
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use super::nat::field;
use crate::output;

/// A route's gateway and what it speaks.
pub struct Asked {
    route: Route,
    offers: Offers,
}

/// Asks the gateways of all routes, or of one interface's, at once. Nothing is opened.
pub async fn asked(interface: Option<&str>) -> Result<Vec<Asked>> {
    let interfaces = match interface {
        Some(name) => vec![Interface::by_name(name)?],
        None => Interface::list()?,
    };
    let mut asking = JoinSet::new();
    for interface in interfaces {
        for family in Family::BOTH {
            if let Some(route) = interface.routes(family).into_iter().find(can_help) {
                asking.spawn(async move { Asked { offers: offers(&route).await, route } });
            }
        }
    }
    let mut asked = asking.join_all().await;
    asked.sort_by_key(|asked| (asked.route.interface().index(), asked.route.family()));
    Ok(asked)
}

pub fn value(asked: &Asked) -> Value {
    let by: Map<String, Value> =
        asked.offers.by.iter().map(|(protocol, offer)| (name(*protocol), said(offer))).collect();
    json!({
        "interface": asked.route.interface().name(),
        "family": asked.route.family(),
        "gateway": asked.offers.gateway,
        "opens_ports_by": by,
    })
}

fn name(protocol: Protocol) -> String {
    protocol.to_string().to_lowercase().replace('-', "_")
}

fn said(offer: &Result<Offer, Failure>) -> Value {
    match offer {
        Ok(offer) => {
            json!({"spoken": true, "external": offer.external, "uptime_s": offer.epoch, "pinholes": offer.pinholes})
        }
        Err(failure) => json!({"spoken": false, "why": failure.to_string()}),
    }
}

pub fn print(asked: &Asked) -> Result<()> {
    let gateway = asked.offers.gateway.map_or("unknown".to_owned(), |ip| ip.to_string());
    let (interface, family) = (asked.route.interface().name(), asked.route.family());
    output::line(format_args!("{interface}  {family}  gateway {gateway}: opens ports by"))?;
    for (protocol, offer) in &asked.offers.by {
        field(&protocol.to_string(), in_words(offer))?;
    }
    Ok(())
}

fn in_words(offer: &Result<Offer, Failure>) -> String {
    match offer {
        Err(Failure::NoAnswer) => "no: no answer".into(),
        Err(failure) => format!("no: {failure}"),
        Ok(Offer { external: Some(ip), .. }) => format!("yes, its external address is {ip}"),
        Ok(Offer { pinholes: Some(false), .. }) => "no: it opens no pinholes".into(),
        Ok(Offer { pinholes: Some(true), .. }) => "yes, pinholes in its firewall".into(),
        Ok(_) => "yes".into(),
    }
}
