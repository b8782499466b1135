use super::*;
use crate::comm::{BodyError, Value};

fn body(text: &str) -> Result<Value, BodyError> {
    read(text, Tags::Refuse)
}

#[track_caller]
fn is(text: &str, value: impl Into<Value>) {
    assert_eq!(body(text).unwrap(), value.into(), "{text:?}");
}

#[test]
fn what_python_writes_is_read_as_python_meant_it() {
    is("hi\n...\n", "hi");
    is("null\n...\n", ());
    is("''\n", "");
    is("'yes'\n", "yes");
    is("\"\\u0151\"\n", "ő");
    is("!!binary |\n  AAEC\n  Aw==\n", Value::Bytes(vec![0, 1, 2, 3]));
    is("!!python/tuple\n- 1\n- a\n", vec![1.into(), "a".into()]);
    is("!!set {a: null}\n", vec!["a".into()]);
    is("1.0e+20\n...\n", 1e20);
    is("1e+20\n...\n", 1e20);
    for text in ["1e5", "0o17", "007", "1_000", "12e4567", "1:30", "+", ".", "e5", "0x", "yes", "0b1"] {
        is(text, text);
    }
    is("-.inf\n...\n", f64::NEG_INFINITY);
    is("18446744073709551615\n...\n", u64::MAX);
    let list = vec![1.into(), 2.5.into(), Value::Null, true.into()];
    is("a: [1, 2.5, null, true]\n", [("a", list.into())]);
    is("&id001\n- 1\n", vec![1.into()]);
    is("- &id001 [x]\n- *id001\n", vec![vec!["x".into()].into(), vec!["x".into()].into()]);
}

#[test]
fn what_is_written_is_read_back_as_it_was() {
    let odd = [
        "",
        "yes",
        "No",
        "1",
        "1e5",
        "0x10",
        "a: b",
        "#",
        "- a",
        " a",
        "a ",
        "~",
        "null",
        "\u{feff}x",
        "é\u{85}\u{2028}\n\t\"\\",
        "2020-01-01",
        "1:30",
        "<<",
        "=",
        "!x",
        "&a",
        "*a",
        "{",
        "'",
        "@",
        "%",
        "x\0",
    ];
    let mut all: Vec<Value> = odd.iter().map(|text| (*text).into()).collect();
    all.extend([1e20, 1e-7, 0.1, -0.0, 123_456.0, f64::MAX, f64::MIN_POSITIVE, f64::INFINITY].map(Value::from));
    all.extend([Value::Int(i64::MIN.into()), u64::MAX.into(), Value::Null, false.into(), Value::Bytes(vec![0, 255])]);
    let pairs = vec![
        (Value::Str("k".repeat(2000)), Value::Null),
        (vec![Value::Null].into(), 1.into()),
        (Value::Bytes(vec![1]), "x".into()),
        (1.into(), Value::Map(Vec::new())),
    ];
    all.push(Value::Map(pairs));
    let value = Value::Seq(all);
    let text = write(&value);
    assert_eq!(body(&text).unwrap(), value, "{text}");
    let Value::Seq(items) = value else { unreachable!() };
    for item in items {
        assert_eq!(body(&write(&item)).unwrap(), item);
    }
}

#[test]
fn a_tag_that_would_build_an_object_builds_nothing() {
    for text in [
        "!!python/object/apply:os.system ['true']",
        "!!python/object:occo.Anything {a: 1}",
        "!!python/name:os.system ''",
        "!!python/object/new:x.Y [1]",
        "[1, {a: !Custom x}]",
        "!<tag:example.com,2000:thing> x",
    ] {
        let error = body(text).unwrap_err();
        assert!(matches!(&error, BodyError::Tag { .. }), "{text}: {error}");
    }
    let kept = read("!!python/object/apply:builtins.ValueError [no]", Tags::Keep).unwrap();
    let inside = Value::Seq(vec!["no".into()]);
    assert_eq!(kept, Value::Tagged("!!python/object/apply:builtins.ValueError".into(), Box::new(inside)));
}

#[test]
fn a_billion_laughs_end_before_they_begin() {
    let mut bomb = String::from("a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for (this, last) in ('b'..='i').zip('a'..) {
        let again = vec![format!("*{last}"); 9].join(", ");
        bomb.push_str(&format!("{this}: &{this} [{again}]\n"));
    }
    assert!(matches!(body(&bomb), Err(BodyError::Bomb)));
    // A long text named once and repeated is the same with one level.
    let long = format!("- &a {}\n{}", "x".repeat(50_000), "- *a\n".repeat(10_000));
    assert!(matches!(body(&long), Err(BodyError::Bomb)));
}

#[test]
fn nesting_ends_at_its_limit_and_takes_no_stack() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(body(&nested(64)).is_ok());
    assert!(matches!(body(&nested(65)), Err(BodyError::TooDeep { .. })));
    assert!(body(&"[".repeat(1_000_000)).is_err());
    assert!(body(&"- ".repeat(100_000)).is_err());
}

#[test]
fn what_is_no_yaml_says_why() {
    for text in [
        "{",
        "a: b: c",
        "\"open",
        "*nothing",
        "&a [*a]",
        "--- a\n--- b",
        "a: 1\na: 2",
        "!!int x",
        "!!binary \"!\"",
        "9999999999999999999999",
    ] {
        let error = body(text).unwrap_err();
        assert!(!error.to_string().is_empty() && !matches!(error, BodyError::Bomb), "{text:?}: {error}");
    }
}
