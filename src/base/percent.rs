//! Decides: what percent signs in URLs stand for.

/// `%41` as `A` (RFC 3986 section 2.1). `None` where a percent sign does not stand before two hexadecimal digits.
pub(crate) fn decoded(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let ([high, low], after) = rest.split_first_chunk::<2>()?;
        bytes.push(digit(*high)? << 4 | digit(*low)?);
        rest = after;
    }
    Some(bytes)
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_signs_stand_for_bytes_and_for_nothing_else() {
        assert_eq!(decoded("a%40b%fF%25").as_deref(), Some(&b"a@b\xFF%"[..]));
        for wrong in ["%", "%4", "a%zz", "%+5", "%é"] {
            assert_eq!(decoded(wrong), None, "{wrong}");
        }
    }
}
