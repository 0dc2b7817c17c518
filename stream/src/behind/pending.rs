//! What waits in a directory: found, and dropped by who asks for that.

use std::{path::Path, sync::Arc};

use super::{
    WriteBehind,
    files::{Files, Head},
};
use crate::{Durability, Name, Server, Target, TargetError, TargetErrorKind};

/// A file of which something waits to be uploaded.
#[derive(Debug)]
pub struct Pending {
    /// Its name on the server.
    pub name: Name,
    /// It, open; or why it is not: then nothing of it is uploaded, and all stays as it is found.
    pub file: Result<Arc<dyn Target>, TargetError>,
    /// What waits of it takes so many bytes here, about as many as are to be uploaded.
    pub bytes: u64,
}

impl WriteBehind {
    /// Files of which something waits to be uploaded: new ones, then others. One that is damaged here is among
    /// them; one whose very name is has that of its log.
    ///
    /// # Errors
    /// [`TargetError`] if the directory cannot be read.
    pub fn pending(&self) -> Result<Vec<Pending>, TargetError> {
        let mut pending = Vec::new();
        for (name, bytes) in self.home.files().new_names()? {
            let file = self.open_new(&name).map(|file| file as Arc<dyn Target>);
            pending.push(Pending { name, file, bytes });
        }
        for head in self.home.files().heads()?.into_iter().filter(|head| head.is_logged) {
            pending.extend(self.pending_of(head));
        }
        for name in self.home.files().nameless()? {
            let what = "the name and the header of the file that it is of are damaged";
            let file = Err(TargetError::new(TargetErrorKind::Damaged, what));
            pending.push(Pending { name, file, bytes: 0 });
        }
        Ok(pending)
    }

    /// What waits of a file that has a log, if something does.
    fn pending_of(&self, head: Head) -> Option<Pending> {
        let opened = self.open_logged(&head.name, &head.header[..], None).transpose()?;
        let (file, bytes) = match opened {
            Ok(file) => {
                let log = file.log().filter(|log| !log.is_empty())?;
                (Ok(file as Arc<dyn Target>), log.bytes())
            }
            Err(error) => (Err(error), 0),
        };
        Some(Pending { name: head.name, file, bytes })
    }

    /// Drops what waits of a file: it is never uploaded, whatever it is. `name` is as [`Pending`] has it. Says
    /// whether something did.
    ///
    /// # Errors
    /// [`TargetError`] if it cannot be removed, or not all of it.
    pub fn forget(&self, name: &Name) -> Result<bool, TargetError> {
        let files = self.home.files();
        let (was_new, is_nameless) =
            (self.new.open(name).is_ok(), files.nameless()?.contains(name));
        let was_logged = files.heads()?.iter().any(|head| head.is_logged && head.name == *name);
        if was_new {
            self.new.remove(name)?;
        }
        if is_nameless {
            files.discard(name.as_str())?;
        }
        self.open_now().files.remove(name);
        self.discard(name)?;
        Ok(was_new || was_logged || is_nameless)
    }

    /// The names of the files of which something may wait in a directory, which may be missing; whoever uses
    /// it meanwhile. One that was killed may have left some of which nothing does.
    ///
    /// # Errors
    /// [`TargetError`] if the directory cannot be read.
    pub fn waiting(dir: impl AsRef<Path>) -> Result<Vec<Name>, TargetError> {
        let files = Files::new(dir.as_ref(), Durability::default());
        let new = files.new_names()?.into_iter().map(|(name, _)| name);
        let logged = files.heads()?.into_iter().filter(|head| head.is_logged);
        Ok(new.chain(logged.map(|head| head.name)).chain(files.nameless()?).collect())
    }
}
