//! The conversation as a file on the agent's volume.

use std::io::ErrorKind;
use std::path::Path;
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::Conversation;

/// The version of the file's form that is written here.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    #[serde(flatten)]
    conversation: Conversation,
}

impl Conversation {
    /// Reads the conversation at `path`; an empty one where there is none.
    ///
    /// A file that cannot be read as one is set aside, and the second result says so.
    pub(crate) fn load(path: &Path) -> (Self, Option<String>) {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return (Self::default(), None),
            Err(error) => return (Self::default(), Some(format!("{} cannot be read: {error}", path.display()))),
        };
        let problem = match serde_json::from_slice::<Stored>(&bytes) {
            Ok(Stored { version: VERSION, conversation }) => return (conversation, None),
            Ok(Stored { version, .. }) => format!("is of version {version}, not {VERSION}"),
            Err(error) => format!("is damaged: {error}"),
        };
        let aside = path.with_extension("damaged.json");
        let moved = match fs::rename(path, &aside) {
            Ok(()) => format!("set aside as {}", aside.display()),
            Err(error) => format!("and cannot be set aside: {error}"),
        };
        (Self::default(), Some(format!("{} {problem}; {moved}; the conversation begins anew", path.display())))
    }

    /// Writes the conversation to `path`: whole, or not at all.
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        // Always the same name: what a kill in the middle of one of so many saves leaves behind, the next one writes over.
        let fresh = path.with_extension("new");
        let stored = Stored { version: VERSION, conversation: self.clone() };
        fs::write(&fresh, serde_json::to_vec(&stored)?)?;
        fs::rename(&fresh, path)
    }
}
