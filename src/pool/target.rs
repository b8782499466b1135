//! Decides: which members a message is for, by their metadata.

use std::fmt;
use std::sync::Arc;

use regex::Regex;
use rmpv::Value;

use super::Meta;

/// Why a target is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The pattern can not be compiled.
    #[error("the pattern {pattern} can not be used: {reason}")]
    Pattern {
        /// What was given.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Members whose metadata match.
#[derive(Clone)]
pub struct Target(Kind);

#[derive(Clone)]
enum Kind {
    Exact(String, Value),
    Pattern(String, Regex),
    By(Arc<dyn Fn(&Meta) -> bool + Send + Sync>),
}

impl Target {
    /// Those whose `key` is `value`; numbers compare as numbers, text as text.
    pub fn exact(key: impl Into<String>, value: impl Into<Value>) -> Self {
        Self(Kind::Exact(key.into(), value.into()))
    }

    /// Those whose `key` is text like `pattern`: `*` is anything, `?` one character, `[a-z]` one of these, `[!a-z]` none of
    /// these, `\` takes the next as it is.
    ///
    /// # Errors
    /// [`TargetError::Pattern`].
    pub fn glob(key: impl Into<String>, pattern: &str) -> Result<Self, TargetError> {
        Self::compiled(key.into(), &regex_of(pattern), pattern)
    }

    /// Those whose `key` is text in which `pattern` (a regular expression) matches somewhere.
    ///
    /// # Errors
    /// [`TargetError::Pattern`].
    pub fn regex(key: impl Into<String>, pattern: &str) -> Result<Self, TargetError> {
        Self::compiled(key.into(), pattern, pattern)
    }

    /// Those for whom `matches` says so.
    pub fn by(matches: impl Fn(&Meta) -> bool + Send + Sync + 'static) -> Self {
        Self(Kind::By(Arc::new(matches)))
    }

    fn compiled(key: String, regex: &str, pattern: &str) -> Result<Self, TargetError> {
        let wrong =
            |error: regex::Error| TargetError::Pattern { pattern: pattern.to_owned(), reason: error.to_string() };
        Ok(Self(Kind::Pattern(key, Regex::new(regex).map_err(wrong)?)))
    }

    /// Whether a member with this metadata is meant.
    pub fn matches(&self, meta: &Meta) -> bool {
        match &self.0 {
            Kind::Exact(key, value) => meta.get(key) == Some(value),
            Kind::Pattern(key, regex) => meta.get(key).and_then(Value::as_str).is_some_and(|text| regex.is_match(text)),
            Kind::By(matches) => matches(meta),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Exact(key, value) => write!(f, "Target({key} = {value})"),
            Kind::Pattern(key, regex) => write!(f, "Target({key} ~ {regex})"),
            Kind::By(_) => f.write_str("Target(by)"),
        }
    }
}

/// A glob as a regular expression.
fn regex_of(glob: &str) -> String {
    let mut out = String::from("(?s)^");
    let mut chars = glob.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' => out.push_str(".*"),
            '?' => out.push('.'),
            '[' => {
                out.push('[');
                if chars.next_if_eq(&'!').is_some() {
                    out.push('^');
                }
            }
            ']' => out.push(']'),
            '-' => out.push('-'),
            '\\' => out.push_str(&regex::escape(&chars.next().unwrap_or('\\').to_string())),
            other => out.push_str(&regex::escape(&other.to_string())),
        }
    }
    out.push('$');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(role: &str) -> Meta {
        Meta::from([("role".to_owned(), role.into()), ("cpus".to_owned(), 4.into())])
    }

    #[test]
    fn exact_glob_regex_and_predicate_choose() {
        for (target, yes, no) in [
            (Target::exact("role", "db"), "db", "db2"),
            (Target::glob("role", "db-?").unwrap(), "db-1", "db-12"),
            (Target::glob("role", "*.x").unwrap(), "a.x", "aXx"),
            (Target::glob("role", "[a-c]1").unwrap(), "b1", "d1"),
            (Target::glob("role", "[!a-c]1").unwrap(), "d1", "b1"),
            (Target::glob("role", r"\*").unwrap(), "*", "a"),
            (Target::regex("role", "^d[bc]$").unwrap(), "dc", "dcx"),
        ] {
            assert!(target.matches(&meta(yes)), "{target:?} {yes}");
            assert!(!target.matches(&meta(no)), "{target:?} {no}");
            assert!(!target.matches(&Meta::new()), "{target:?}");
        }
        assert!(Target::exact("cpus", 4).matches(&meta("")));
        assert!(Target::by(|meta| meta.len() == 2).matches(&meta("")));
        assert!(Target::regex("role", "(").is_err());
        assert!(Target::glob("role", "[").is_err());
    }
}
