//! Decides: what a bare word of YAML means, and a word with a tag.
//!
//! Where YAML 1.1 and 1.2 differ, a word means what it means to the Python library that wrote it bare: a text that PyYAML leaves
//! without quotes is a text (`1e5`, `0o17`, `007`), whatever 1.2 takes it for; and `yes` and `no`, which it quotes, are
//! texts as well, as in 1.2.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::comm::{BodyError, Value};

/// A plain scalar by its form.
///
/// # Errors
/// [`BodyError::Number`] for a whole number that no integer type holds.
pub(super) fn resolve(text: &str) -> Result<Value, BodyError> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        _ => {}
    }
    // Nothing that is a number begins with anything else; most words end here.
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Ok(Value::Str(text.to_owned()));
    }
    if let Some(number) = int(text)? {
        return Ok(Value::Int(number));
    }
    Ok(float(text).map_or_else(|| Value::Str(text.to_owned()), Value::Float))
}

/// A scalar whose tag is `name`, where this tag stands for plain data.
///
/// # Errors
/// [`BodyError::Syntax`] when the text is not of the tag's form.
pub(super) fn with_tag(text: &str, name: Option<&str>) -> Result<Option<Value>, BodyError> {
    let Some(name) = name else { return Ok(None) };
    let wrong = || BodyError::Syntax { format: "YAML", why: format!("a scalar is no !!{name}") };
    Ok(Some(match name {
        "str" | "timestamp" | "python/str" | "python/unicode" => Value::Str(text.to_owned()),
        "null" | "python/none" => Value::Null,
        "bool" | "python/bool" => match resolve(&text.to_ascii_lowercase())? {
            value @ Value::Bool(_) => value,
            _ => return Err(wrong()),
        },
        "int" | "python/int" | "python/long" => Value::Int(int(text)?.ok_or_else(wrong)?),
        "float" | "python/float" => Value::Float(float(text).ok_or_else(wrong)?),
        "binary" | "python/bytes" => {
            let letters: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            Value::Bytes(STANDARD.decode(letters).map_err(|_| wrong())?)
        }
        _ => return Ok(None),
    }))
}

fn int(text: &str) -> Result<Option<i128>, BodyError> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits {
        _ if digits.starts_with("0x") => (16, &digits[2..]),
        _ if digits.len() > 1 && digits.starts_with('0') => return Ok(None),
        _ => (10, digits),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Ok(None);
    }
    let number = i128::from_str_radix(digits, radix).ok().map(|n| if negative { -n } else { n });
    match number.filter(|n| (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(n)) {
        Some(number) => Ok(Some(number)),
        None => Err(BodyError::Number { digits: digits.len() }),
    }
}

fn float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    match unsigned {
        ".inf" | ".Inf" | ".INF" => return Some(sign * f64::INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Some(f64::NAN),
        _ => {}
    }
    // An exponent without a sign is none: `12e4567` is more often the name of something than a number.
    if let Some(at) = unsigned.find(['e', 'E'])
        && !unsigned[at + 1..].starts_with(['+', '-'])
    {
        return None;
    }
    // Rust's parser takes more than YAML does (`inf`, `nan`), but nothing of that begins with a digit.
    let begins = unsigned.trim_start_matches('.').starts_with(|c: char| c.is_ascii_digit());
    if !begins || !unsigned.contains(['.', 'e', 'E']) { None } else { text.parse().ok() }
}
