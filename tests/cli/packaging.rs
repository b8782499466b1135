//! What comes beside the command: the Debian package, the unit of the server, manual pages and completions, and the log.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{natpipe, run, text};

/// A folder of the test's own, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("natpipe-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The subcommands, as the help lists them.
fn subcommands() -> Vec<String> {
    let help = text(&run(&["--help"]).stdout);
    let listed = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = listed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).filter(|name| name != "help").collect()
}

#[test]
fn each_subcommand_has_a_manual_page_and_is_completed() {
    let (folder, all) = (Folder::new("man"), subcommands());
    assert!(all.len() > 15, "{all:?}");
    let dir = folder.0.to_str().unwrap();
    assert!(run(&["man", dir]).status.success());
    let scripts = ["bash", "zsh", "fish"].map(|shell| text(&run(&["completions", shell]).stdout));
    for name in &all {
        let page = std::fs::read_to_string(folder.0.join(format!("natpipe-{name}.1"))).unwrap();
        assert!(page.contains(".TH") && page.contains("natpipe"), "{page}");
        assert!(scripts.iter().all(|script| script.contains(name.as_str())), "{name} is completed by each shell");
    }
}

#[test]
fn the_debian_package_has_the_command_its_pages_and_the_unit() {
    let folder = Folder::new("deb");
    let built = Command::new(root().join("packaging/deb/build"))
        .arg(env!("CARGO_BIN_EXE_natpipe"))
        .arg(&folder.0)
        .env("COMPRESSION", "none")
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", text(&built.stderr));
    let package = text(&built.stdout).trim().to_owned();
    let dpkg = |what: &str| text(&Command::new("dpkg-deb").args([what, &package]).output().unwrap().stdout);
    let files = dpkg("--contents");
    for file in [
        "-rwxr-xr-x root/root ",
        " ./usr/bin/natpipe\n",
        " ./lib/systemd/system/natpipe.service\n",
        " ./usr/share/man/man1/natpipe-serve.1.gz\n",
        " ./usr/share/bash-completion/completions/natpipe\n",
        " ./usr/share/zsh/vendor-completions/_natpipe\n",
        " ./usr/share/fish/vendor_completions.d/natpipe.fish\n",
        " ./usr/share/doc/natpipe/copyright\n",
    ] {
        assert!(files.contains(file), "{file} in {files}");
    }
    let control = dpkg("--field");
    assert!(control.contains(&format!("Version: {}-1\n", env!("CARGO_PKG_VERSION"))), "{control}");
    assert!(control.contains("Depends: ") && control.contains("libc6"), "{control}");
}

/// What systemd says of the unit, where it is; its command is given the place of ours.
#[test]
fn the_unit_of_the_server_is_understood() {
    let unit = std::fs::read_to_string(root().join("packaging/natpipe.service")).unwrap();
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let args: Vec<&str> = start.split_whitespace().skip(1).filter(|arg| !arg.starts_with('$')).collect();
    let asked = natpipe(&args).arg("--help").output().unwrap();
    assert!(asked.status.success(), "{}", text(&asked.stderr));

    let folder = Folder::new("unit");
    let file = folder.0.join("natpipe.service");
    std::fs::write(&file, unit.replace("/usr/bin/natpipe", env!("CARGO_BIN_EXE_natpipe"))).unwrap();
    match Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file).output() {
        Ok(said) => {
            let said = (said.status.success(), text(&said.stderr));
            assert!(said.0 && !said.1.contains("natpipe.service"), "{}", said.1);
        }
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
    }
}

/// What a server says on standard error when a stranger sends it nonsense, up to the line that names the room, if one does.
fn log(level: Option<&str>, room: Option<&str>) -> String {
    let mut command = natpipe(&["serve", "--listen", "127.0.0.1:0", "--json"]);
    command.env_remove("RUST_LOG");
    level.map(|level| command.env("RUST_LOG", level));
    let mut server = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let event: serde_json::Value = serde_json::from_str(&line).unwrap();
    let mut stranger = TcpStream::connect(event["local"].as_str().unwrap()).unwrap();
    stranger.write_all(b"\x16\x03\x01\x00\x05nonsense").unwrap();
    // Until the server has thrown it out.
    let _ = stranger.read_to_end(&mut Vec::new());
    let (mut told, mut errors) = (String::new(), BufReader::new(server.stderr.take().unwrap()));
    while room.is_some_and(|room| !told.contains(room)) {
        assert_ne!(errors.read_line(&mut told).unwrap(), 0, "it ended: {told}");
    }
    server.kill().unwrap();
    server.wait().unwrap();
    errors.read_to_string(&mut told).unwrap();
    told
}

#[test]
fn rust_log_says_how_much_is_told() {
    assert_eq!(log(None, None), "");
    assert_eq!(log(Some("natpipe=warn"), None), "");
    let told = log(Some("natpipe=debug"), Some("natpipe::rendezvous"));
    assert!(told.contains("DEBUG"), "{told}");
}
