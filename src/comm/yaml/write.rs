//! Decides: how a value is spelled in YAML, so that readers of YAML 1.1 (Python) and 1.2 agree on it.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::comm::Value;

/// Python's readers take a key for a key without a `?` only while it is short.
const SHORT_KEY: usize = 500;

/// One line of YAML with its line end; a bare scalar is followed by the document's end, as Python's
/// libraries write it.
pub(crate) fn write(value: &Value) -> String {
    let mut out = spell(value);
    out.push_str(if is_plain_scalar(value) { "\n...\n" } else { "\n" });
    out
}

/// The value alone, on one line.
pub(crate) fn spell(value: &Value) -> String {
    let mut out = String::new();
    node(&mut out, value);
    out
}

fn is_plain_scalar(value: &Value) -> bool {
    match value {
        Value::Str(text) => is_word(text),
        Value::Seq(_) | Value::Map(_) | Value::Bytes(_) | Value::Tagged(..) => false,
        _ => true,
    }
}

fn node(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Int(number) => write!(out, "{number}").expect("a string takes everything"),
        Value::Float(number) => float(out, *number),
        Value::Str(text) if is_word(text) => out.push_str(text),
        Value::Str(text) => quoted(out, text),
        Value::Bytes(bytes) => {
            out.push_str("!!binary \"");
            STANDARD.encode_string(bytes, out);
            out.push('"');
        }
        Value::Seq(list) => {
            out.push('[');
            for (n, item) in list.iter().enumerate() {
                out.push_str(if n > 0 { ", " } else { "" });
                node(out, item);
            }
            out.push(']');
        }
        Value::Map(pairs) => {
            out.push('{');
            for (n, (key, value)) in pairs.iter().enumerate() {
                out.push_str(if n > 0 { ", " } else { "" });
                entry(out, key, value);
            }
            out.push('}');
        }
        Value::Tagged(tag, value) => {
            out.push_str(tag);
            out.push(' ');
            node(out, value);
        }
    }
}

fn entry(out: &mut String, key: &Value, value: &Value) {
    let short = match key {
        Value::Str(text) => text.len() < SHORT_KEY,
        Value::Bytes(_) | Value::Seq(_) | Value::Map(_) | Value::Tagged(..) => false,
        _ => true,
    };
    out.push_str(if short { "" } else { "? " });
    node(out, key);
    out.push_str(if short { ": " } else { " : " });
    node(out, value);
}

/// YAML 1.1 wants a point in a float and a sign in its exponent.
fn float(out: &mut String, number: f64) {
    if number.is_nan() {
        return out.push_str(".nan");
    }
    if number.is_infinite() {
        return out.push_str(if number > 0.0 { ".inf" } else { "-.inf" });
    }
    let text = format!("{number:?}");
    match text.split_once('e') {
        None => out.push_str(&text),
        Some((mantissa, exponent)) => {
            out.push_str(mantissa);
            out.push_str(if mantissa.contains('.') { "e" } else { ".0e" });
            out.push_str(if exponent.starts_with('-') { "" } else { "+" });
            out.push_str(exponent);
        }
    }
}

/// True for text that no reader takes for anything but text, without quotes.
fn is_word(text: &str) -> bool {
    const TAKEN: &[&str] = &["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ' ');
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(plain)
        && !text.ends_with(' ')
        && text.len() < 64
        && !TAKEN.iter().any(|word| word.eq_ignore_ascii_case(text))
}

fn quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            // Not printable in YAML, or a line break for its readers.
            '\0'..='\x1f' | '\x7f'..='\u{a0}' => {
                write!(out, "\\x{:02x}", u32::from(c)).expect("a string takes everything");
            }
            '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                write!(out, "\\u{:04x}", u32::from(c)).expect("a string takes everything");
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
