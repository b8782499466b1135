//! Decides: what becomes of a message after it was processed.

use super::{Fate, Response};

/// A message's fate by its answer. `tries` are those before this one.
pub(super) fn verdict(response: &Response, is_call: bool, tries: u32, max_tries: u32) -> Fate {
    if !response.finalize {
        return Fate::Leave;
    }
    // The caller has the answer, and decides itself whether to call again.
    if is_call {
        return Fate::Done;
    }
    match response.http_code {
        200..=299 => Fate::Done,
        500..=599 if tries.saturating_add(1) < max_tries => Fate::Retry,
        code => Fate::Dead(format!("[{code}] {}", short(response))),
    }
}

/// What was said, short enough for a header of a message.
fn short(response: &Response) -> String {
    let text = response.data.as_str().map_or_else(|| response.data.to_string(), str::to_owned);
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_tried_once_whatever_it_answers() {
        for code in [200, 400, 503, 999] {
            assert_eq!(verdict(&Response::new(code, ()), true, 0, 3), Fate::Done);
        }
    }

    #[test]
    fn a_push_is_tried_again_only_while_that_may_help() {
        let fate = |code, tries| verdict(&Response::new(code, "why"), false, tries, 3);
        assert_eq!(fate(204, 0), Fate::Done);
        assert_eq!([fate(500, 0), fate(599, 1)], [Fate::Retry, Fate::Retry]);
        assert_eq!(fate(500, 2), Fate::Dead("[500] why".into()));
        assert_eq!(fate(404, 0), Fate::Dead("[404] why".into()));
        assert!(matches!(fate(302, 0), Fate::Dead(_)));
        assert!(matches!(fate(500, u32::MAX), Fate::Dead(_)));
    }

    #[test]
    fn what_is_not_final_stays() {
        assert_eq!(verdict(&Response::ok(()).not_final(), false, 0, 3), Fate::Leave);
        assert_eq!(verdict(&Response::new(500, ()).not_final(), true, 0, 3), Fate::Leave);
    }
}
