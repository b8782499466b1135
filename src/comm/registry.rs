//! Holds: the factory: which backend a protocol's name stands for.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use super::direct::Direct;
use super::{Backend, ConfigError, Memory};

type Backends = BTreeMap<String, Arc<dyn Backend>>;

static BACKENDS: LazyLock<RwLock<Backends>> = LazyLock::new(|| RwLock::new(built_in()));

fn built_in() -> Backends {
    let mut all = Backends::new();
    all.insert("memory".to_owned(), Arc::new(Memory::new()));
    all.insert("pipe".to_owned(), Arc::new(Direct::new()));
    #[cfg(feature = "amqp")]
    all.insert("amqp".to_owned(), Arc::new(super::amqp::Amqp::new()));
    all
}

/// Makes a backend known under the name that `protocol` has in a configuration. One that had the name before
/// is replaced, and returned; what it has opened goes on.
pub fn register(protocol: impl Into<String>, backend: Arc<dyn Backend>) -> Option<Arc<dyn Backend>> {
    BACKENDS.write().unwrap_or_else(PoisonError::into_inner).insert(protocol.into(), backend)
}

/// The backend of a protocol.
///
/// # Errors
/// [`ConfigError::Protocol`] when none has this name.
pub fn backend(protocol: &str) -> Result<Arc<dyn Backend>, ConfigError> {
    let backends = BACKENDS.read().unwrap_or_else(PoisonError::into_inner);
    backends.get(protocol).cloned().ok_or_else(|| {
        let known: Vec<_> = backends.keys().map(|name| format!("`{name}`")).collect();
        ConfigError::Protocol { protocol: protocol.to_owned(), known: known.join(", ") }
    })
}
