//! Ordinary users build labs too.

use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::{env, fs};

use natpipe::lab::{Internet, Kind, LabError};

/// `nobody` on every Linux: it owns nothing.
const NOBODY: u32 = 65_534;

#[test]
fn an_ordinary_user_builds_a_lab() {
    let folder = env::temp_dir().join(format!("natpipe-lab-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.join("lab");
    fs::copy(env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(&program);
    command.args(["--exact", "ordinary::what_an_ordinary_user_builds", "--ignored"]).current_dir("/");
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output();
    fs::remove_dir_all(&folder).unwrap();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

/// Of this machine, not only of a user namespace, where nobody else exists.
fn is_root() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    let everybody = map.split_whitespace().nth(2).is_some_and(|count| count.parse::<u32>().is_ok_and(|n| n > NOBODY));
    everybody && fs::read_to_string("/proc/self/status").unwrap().contains("Uid:\t0\t0")
}

#[test]
#[ignore = "run by the test above, as another user"]
fn what_an_ordinary_user_builds() {
    assert!(!is_root());
    for internet in [Internet::direct(), Internet::new()].map(Result::unwrap) {
        let (server, client) = (internet.host("server").unwrap(), internet.behind(Kind::Home).unwrap());
        let at_server = server.run(|| UdpSocket::bind((server.v4().unwrap(), 0))).unwrap();
        let at_client = client.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
        at_client.send_to(b"?", at_server.local_addr().unwrap()).unwrap();
        let seen = at_server.recv_from(&mut [0; 4]).unwrap().1;
        assert_eq!(seen.ip(), client.router().unwrap().outside()[0]);
    }
    // A translator needs a TUN device, which some systems keep from this user.
    let allowed = fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun").is_ok();
    match Internet::new().unwrap().behind(Kind::Nat64) {
        Ok(_) => assert!(allowed),
        Err(error @ LabError::Tun { .. }) => assert!(!allowed && error.to_string().contains("/dev/net/tun"), "{error}"),
        Err(error) => panic!("{error}"),
    }
}
