//! Touches: identity files, made at once and for their owner only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::Identity;
use super::identity::{NoRandomness, SEED_LEN, random};

/// An Ed25519 private key in PKCS #8 (RFC 8410 section 7) up to the key itself, as OpenSSL writes it.
pub(super) const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// What follows the length and the version, whichever they are: others append the public key (RFC 5958).
const ED25519: &[u8] = &[0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// An identity file has some 120 bytes; this is room for comments around the key.
const MOST: u64 = 16 * 1024;

/// Why an identity could not be read or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file can not be read or written.
    #[error("cannot {what} the identity file {}: {source}", path.display())]
    File {
        /// What was tried: read, make.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Others on this machine may read the file: whoever did can be this peer. Make a new one, or, where
    /// nobody did, take the permission away.
    #[error("others may read the identity file {}; chmod 600 it, or make a new one", path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
    },
    /// The file holds no Ed25519 private key (PKCS #8, PEM).
    #[error("{} holds no Ed25519 private key (PKCS #8 in PEM, as `openssl genpkey -algorithm ed25519` makes it)", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// No key could be made.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl Identity {
    /// Reads an identity file: an Ed25519 private key in PKCS #8, PEM (RFC 8410), readable for its owner only.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let path = path.as_ref();
        let failed = |source| IdentityError::File { what: "read", path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        if !is_private(&file.metadata().map_err(failed)?) {
            return Err(IdentityError::Permissions { path: path.to_owned() });
        }
        let mut text = Zeroizing::new(Vec::with_capacity(1024));
        (&mut file).take(MOST).read_to_end(&mut text).map_err(failed)?;
        read(&text).ok_or_else(|| IdentityError::Format { path: path.to_owned() })
    }

    /// Reads an identity file, or makes one with a fresh identity where there is none. Of several
    /// processes that do this at once, all get the same.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn from_file_or_new(path: impl AsRef<Path>) -> Result<Self, IdentityError> {
        let path = path.as_ref();
        match Self::from_file(path) {
            Err(IdentityError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            found => return found,
        }
        match Self::generate()?.write_new(path) {
            Err(IdentityError::File { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(()) => {}
        }
        Self::from_file(path)
    }

    /// Writes the identity to a file that does not exist yet. It appears with all its bytes, readable for its
    /// owner only, or not at all.
    ///
    /// # Errors
    /// [`IdentityError::File`], of kind `AlreadyExists` when there is one.
    pub fn write_new(&self, path: impl AsRef<Path>) -> Result<(), IdentityError> {
        let path = path.as_ref();
        let failed = |source| IdentityError::File { what: "make", path: path.to_owned(), source };
        let beside = beside(path, random::<8>()?);
        let made = write(&beside, &self.pem()).and_then(|()| fs::hard_link(&beside, path));
        // Where there was nothing to take away the error that matters is the first one.
        let _ = fs::remove_file(&beside);
        made.map_err(failed)
    }

    fn pem(&self) -> Zeroizing<String> {
        let mut der = Zeroizing::new([0; PKCS8.len() + SEED_LEN]);
        der[..PKCS8.len()].copy_from_slice(&PKCS8);
        der[PKCS8.len()..].copy_from_slice(&*self.seed());
        let base64 = Zeroizing::new(BASE64.encode(&*der));
        Zeroizing::new(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", &*base64))
    }
}

/// A name in the same folder that nobody else takes.
fn beside(path: &Path, random: [u8; 8]) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{:016x}", u64::from_be_bytes(random)));
    path.with_file_name(name)
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(unix)]
fn is_private(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o077 == 0
}

/// Elsewhere the folder of the user keeps others out.
#[cfg(not(unix))]
fn is_private(_: &fs::Metadata) -> bool {
    true
}

fn read(text: &[u8]) -> Option<Identity> {
    let der = PrivatePkcs8KeyDer::from_pem_slice(text).ok()?;
    let (start, end) = (PKCS8.len(), PKCS8.len() + SEED_LEN);
    let der = der.secret_pkcs8_der();
    if der.get(5..start)? != ED25519 {
        return None;
    }
    Some(Identity::from_seed(der.get(start..end)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            let path =
                std::env::temp_dir().join(format!("natpipe-key-{:032x}", u128::from_be_bytes(random().unwrap())));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("identity")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn an_identity_file_is_made_once_and_read_again() {
        let folder = Folder::new();
        let made = Identity::from_file_or_new(folder.file()).unwrap();
        assert_eq!(Identity::from_file_or_new(folder.file()).unwrap().peer_id(), made.peer_id());
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1, "nothing else is left behind");
        let again = Identity::generate().unwrap().write_new(folder.file());
        assert!(
            matches!(again, Err(IdentityError::File { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists)
        );
        assert_eq!(Identity::from_file(folder.file()).unwrap().peer_id(), made.peer_id(), "it is never overwritten");
    }

    #[test]
    fn many_at_once_get_the_same_identity() {
        let folder = Folder::new();
        let file = folder.file();
        let made: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| Identity::from_file_or_new(&file).unwrap().peer_id())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(made.iter().all(|peer| *peer == made[0]));
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_may_read_it_and_a_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = Folder::new();
        Identity::from_file_or_new(folder.file()).unwrap();
        assert_eq!(fs::metadata(folder.file()).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(folder.file(), fs::Permissions::from_mode(0o640)).unwrap();
        let refused = Identity::from_file(folder.file()).unwrap_err();
        assert!(matches!(refused, IdentityError::Permissions { .. }) && refused.to_string().contains("chmod 600"));
    }

    #[test]
    fn openssl_reads_our_files_and_we_read_its() {
        let folder = Folder::new();
        let ours = Identity::from_file_or_new(folder.file()).unwrap();
        let openssl = |args: &[&str]| {
            let done = std::process::Command::new("openssl").args(args).output().expect("openssl is installed");
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            done.stdout
        };
        let ours_file = folder.file().display().to_string();
        let public = openssl(&["pkey", "-in", &ours_file, "-pubout", "-outform", "DER"]);
        assert_eq!(&public[12..], ours.peer_id().as_bytes());
        let theirs = folder.0.join("theirs");
        let theirs_file = theirs.display().to_string();
        openssl(&["genpkey", "-algorithm", "ed25519", "-out", &theirs_file]);
        #[cfg(unix)]
        fs::set_permissions(&theirs, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let public = openssl(&["pkey", "-in", &theirs_file, "-pubout", "-outform", "DER"]);
        assert_eq!(&public[12..], Identity::from_file(&theirs).unwrap().peer_id().as_bytes());
        // Another algorithm is no identity.
        fs::remove_file(&theirs).unwrap();
        openssl(&["genpkey", "-algorithm", "x25519", "-out", &theirs_file]);
        #[cfg(unix)]
        fs::set_permissions(&theirs, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        assert!(matches!(Identity::from_file(&theirs), Err(IdentityError::Format { .. })));
    }

    #[test]
    fn a_file_that_is_no_identity_or_not_there_says_so() {
        let folder = Folder::new();
        let missing = Identity::from_file(folder.file()).unwrap_err();
        assert!(matches!(missing, IdentityError::File { what: "read", .. }), "{missing}");
        write(&folder.file(), "hello").unwrap();
        assert!(matches!(Identity::from_file(folder.file()), Err(IdentityError::Format { .. })));
        assert!(matches!(Identity::from_file_or_new(folder.file()), Err(IdentityError::Format { .. })));
    }
}
