//! Bodies of messages: whatever they say, reading one ends, builds nothing, and what was read can be written and read again.

use natpipe::comm::{Config, Format};

/// True when the input is a body in YAML.
pub fn body(input: &[u8]) -> bool {
    for format in [Format::Json, Format::MessagePack] {
        // These may be anything; they may not panic.
        let _ = format.decode(input).map(|value| format.encode(&value));
    }
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = (Config::from_yaml(text), Config::from_toml(text));
    }
    let Ok(value) = Format::Yaml.decode(input) else { return false };
    let written = Format::Yaml.encode(&value).expect("YAML can say everything");
    let again = Format::Yaml.decode(&written).expect("what was written can be read");
    // Not a number is not equal to itself; its spelling is.
    assert_eq!(again.to_string(), value.to_string());
    true
}
