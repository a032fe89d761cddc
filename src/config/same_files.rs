//! One file under two keys: one of them would overwrite or append to what the other needs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::model::Config;

/// Which file a path leads to: that file, or its place in a folder that is there.
#[derive(Debug, PartialEq, Eq)]
enum Identity {
    File(u64, u64),
    Place(PathBuf, OsString),
}

fn identity(path: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    if let Ok(metadata) = std::fs::metadata(path) {
        return Some(Identity::File(metadata.dev(), metadata.ino()));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Some(Identity::Place(folder.canonicalize().ok()?, path.file_name()?.to_owned()))
}

/// The key of a file that the server writes and that is another key's file, too, and what is wrong with it.
pub(super) fn check(config: &Config) -> Result<(), (&'static str, String)> {
    let audit = &config.audit;
    let mut written = vec![
        ("gateway.audit.signing_key_path", audit.signing_key_path.as_path()),
        ("gateway.audit.store_key_path", audit.store_key_path.as_path()),
    ];
    let optional = [
        ("gateway.audit.file_path", audit.file_path.as_deref()),
        ("gateway.audit.anchor_path", audit.anchor_path.as_deref()),
        ("gateway.audit.archive_dir", audit.archive()),
        ("gateway.redis.data_dir", config.redis.managed.as_deref()),
        ("admin_socket_path", config.admin_socket.path.as_deref()),
        ("tls_revoked_path", config.tls.revoked.as_deref()),
    ];
    written.extend(optional.into_iter().filter_map(|(key, path)| Some((key, path?))));
    let mut others = vec![
        ("the configuration", config.path.as_path()),
        ("tls_ca_path", config.tls.ca.as_path()),
        ("tls_server_cert_path", config.tls.cert.as_path()),
        ("tls_server_key_path", config.tls.key.as_path()),
    ];
    for log in &audit.logs {
        others.push(("gateway.audit.logs", log.public_key_path.as_path()));
        let copies = [log.anchor_path.as_deref(), log.archive_dir.as_deref()];
        others.extend(copies.into_iter().flatten().map(|path| ("gateway.audit.logs", path)));
    }
    for (place, (key, path)) in written.iter().enumerate() {
        let Some(own) = identity(path) else { continue };
        let before = written.iter().take(place).chain(&others);
        for (other, at) in before {
            if identity(at).as_ref() == Some(&own) {
                let path = path.display();
                return Err((key, format!("{path} is the file of {other}, too; expected a path of its own")));
            }
        }
    }
    Ok(())
}
