//! What must hold for any bytes that claim to be a gateway's answer: shared by the fuzz target and the test that replays its corpus.

use natpipe::portmap::{Answer, read_nat_pmp, read_pcp};

/// Neither reader panics, what is read is of the protocol, and more bytes change nothing. Whether it was an answer.
pub fn answer(bytes: &[u8]) -> bool {
    let (pcp, nat_pmp) = (read_pcp(bytes), read_nat_pmp(bytes));
    let longer = [bytes, &[0; 40]].concat();
    if pcp.is_ok() {
        assert_eq!(read_pcp(&longer), pcp);
        assert!(!matches!(pcp, Ok(Answer::External { .. })), "PCP has no such answer");
    }
    if nat_pmp.is_ok() {
        assert_eq!(read_nat_pmp(&longer), nat_pmp);
        assert!(!matches!(nat_pmp, Ok(Answer::There { .. })), "NAT-PMP has no such answer");
    }
    for answer in [pcp, nat_pmp].into_iter().flatten() {
        if let Answer::Mapped { external: (ip, _), nonce, .. } = answer {
            assert_eq!(ip.is_some(), nonce.is_some(), "PCP tells both, NAT-PMP neither");
        }
        if let Answer::Refused { why, .. } = answer {
            assert!(!why.is_empty());
        }
    }
    pcp.is_ok() || nat_pmp.is_ok()
}
