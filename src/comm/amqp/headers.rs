//! Decides: what a message's properties say, and what ours do.

use std::collections::BTreeMap;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::comm::{Config, ConfigError, Format, Payload};

/// How often natpipe has put a message back.
const TRIES: &str = "x-natpipe-tries";
/// How often a quorum queue has delivered it in vain.
const DELIVERIES: &str = "x-delivery-count";
/// Why a message was given up, and from which queue.
const WHY: &str = "x-natpipe-why";
const QUEUE: &str = "x-natpipe-queue";
/// The code of an answer in raw bytes.
const CODE: &str = "http_code";
/// Messages that survive the broker's restart, in durable queues.
const PERSISTENT: u8 = 2;

/// A name for the wire, which has room for 255 bytes.
pub(super) fn short(key: &'static str, text: &str) -> Result<ShortString, ConfigError> {
    ShortString::try_new(text).map_err(|_| ConfigError::Invalid {
        key: key.to_owned(),
        value: format!("a text of {} bytes", text.len()),
        wanted: "up to 255 bytes",
    })
}

/// The properties of a message that is pushed.
pub(super) fn of_push(conf: &Config, payload: &Payload) -> BasicProperties {
    let properties = BasicProperties::default();
    let properties = match payload.format {
        Some(format) => properties.with_content_type(format.content_type().into()),
        None => properties,
    };
    if conf.durable { properties.with_delivery_mode(PERSISTENT) } else { properties }
}

/// The properties of an answer.
pub(super) fn of_answer(answer: &Payload, correlation: Option<ShortString>) -> BasicProperties {
    let mut properties = BasicProperties::default();
    if let Some(correlation) = correlation {
        properties = properties.with_correlation_id(correlation);
    }
    if let Some(format) = answer.format {
        properties = properties.with_content_type(format.content_type().into());
    }
    if let Some(code) = answer.code {
        let mut headers = FieldTable::default();
        headers.insert(CODE.into(), AMQPValue::LongInt(code.into()));
        properties = properties.with_headers(headers);
    }
    properties
}

/// What came, as a payload.
pub(super) fn payload(properties: &BasicProperties, body: Vec<u8>) -> Payload {
    let format = properties.content_type().as_ref().and_then(|name| Format::from_content_type(name.as_str()));
    let code = number(properties, CODE).and_then(|code| u16::try_from(code).ok());
    Payload { body: body.into(), format, code }
}

/// How often a message was tried in vain.
pub(super) fn tries(properties: &BasicProperties) -> u32 {
    let count = |name| number(properties, name).and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    count(TRIES).saturating_add(count(DELIVERIES))
}

fn number(properties: &BasicProperties, name: &str) -> Option<i64> {
    match properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::ShortShortInt(n) => Some((*n).into()),
        AMQPValue::ShortShortUInt(n) => Some((*n).into()),
        AMQPValue::ShortInt(n) => Some((*n).into()),
        AMQPValue::ShortUInt(n) => Some((*n).into()),
        AMQPValue::LongInt(n) => Some((*n).into()),
        AMQPValue::LongUInt(n) => Some((*n).into()),
        AMQPValue::LongLongInt(n) => Some(*n),
        _ => None,
    }
}

/// The properties of a message that goes back to its queue: its own, and one more try.
pub(super) fn again(properties: &BasicProperties, tries: u32) -> BasicProperties {
    let counted = with_header(properties, TRIES, AMQPValue::LongUInt(tries.saturating_add(1)));
    // The broker's count is in ours now, and begins again with the new message.
    let headers = counted.headers().clone().unwrap_or_default();
    let others = headers.inner().iter().filter(|(name, _)| name.as_str() != DELIVERIES);
    let kept: BTreeMap<_, _> = others.map(|(name, value)| (name.clone(), value.clone())).collect();
    counted.with_headers(kept.into())
}

/// The properties of a message that is given up: its own, and why.
pub(super) fn dead(properties: &BasicProperties, queue: &str, why: &str) -> BasicProperties {
    let said = with_header(properties, WHY, AMQPValue::LongString(why.into()));
    let said = with_header(&said, QUEUE, AMQPValue::LongString(queue.into()));
    // It has all the time that it needs there.
    strip_expiration(said)
}

fn with_header(properties: &BasicProperties, name: &'static str, value: AMQPValue) -> BasicProperties {
    let mut headers = properties.headers().clone().unwrap_or_default();
    headers.insert(name.into(), value);
    properties.clone().with_headers(headers)
}

fn strip_expiration(properties: BasicProperties) -> BasicProperties {
    let mut kept = BasicProperties::default();
    if let Some(headers) = properties.headers() {
        kept = kept.with_headers(headers.clone());
    }
    if let Some(name) = properties.content_type() {
        kept = kept.with_content_type(name.clone());
    }
    if let Some(mode) = properties.delivery_mode() {
        kept = kept.with_delivery_mode(*mode);
    }
    if let Some(id) = properties.message_id() {
        kept = kept.with_message_id(id.clone());
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_add_up_and_the_properties_stay() {
        let first = BasicProperties::default().with_content_type("application/json".into());
        let second = again(&first, tries(&first));
        let third = again(&second, tries(&second));
        assert_eq!([tries(&first), tries(&second), tries(&third)], [0, 1, 2]);
        assert_eq!(payload(&third, vec![1]).format, Some(Format::Json));
    }

    #[test]
    fn hostile_headers_count_as_nothing() {
        for value in [AMQPValue::LongLongInt(-1), AMQPValue::LongLongInt(i64::MAX), AMQPValue::Boolean(true)] {
            let mut headers = FieldTable::default();
            headers.insert(TRIES.into(), value.clone());
            headers.insert(CODE.into(), value);
            let properties = BasicProperties::default().with_headers(headers);
            assert_eq!((tries(&properties), payload(&properties, vec![]).code), (0, None));
        }
    }

    #[test]
    fn a_name_that_is_too_long_for_the_wire_is_an_error() {
        assert!(short("queue", &"q".repeat(255)).is_ok());
        assert!(short("queue", &"q".repeat(256)).is_err());
    }
}
